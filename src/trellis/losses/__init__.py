"""Losses: pure functions of tensors, un-reduced or sums."""
