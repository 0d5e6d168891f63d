"""The plan before a run: checks and advice."""
