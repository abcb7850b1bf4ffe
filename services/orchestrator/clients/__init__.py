"""The ports over HTTP: our own generator and verifier services, and any OpenAI-compatible server."""
