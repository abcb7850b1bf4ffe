"""The generator service: samples solutions with vLLM."""
