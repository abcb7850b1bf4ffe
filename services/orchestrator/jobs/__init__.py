"""Durable evaluation jobs: state in redis, samples at the results URL, dramatiq between the two."""
