"""Our paths beside the plain ones, as ratios: `python -m benchmarks`."""
