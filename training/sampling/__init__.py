"""Sampling for training: one port, and what may stand behind it."""
