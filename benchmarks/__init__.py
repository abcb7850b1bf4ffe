"""Benchmarks: our engines against what peers do, on the same machine in the same run. Nothing imports this package."""
