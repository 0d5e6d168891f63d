"""The training loops and their configs."""
