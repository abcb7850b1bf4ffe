"""Nouns, ports, errors and pure reasoning functions. No IO: no web stack, no torch, no vllm, no redis."""
