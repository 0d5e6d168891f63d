"""Training makes things better, not merely different."""
