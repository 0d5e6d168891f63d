"""Whole trainers beside those of peers, each in an environment of its own: `python -m benchmarks peers`."""
