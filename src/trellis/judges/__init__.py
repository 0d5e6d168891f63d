"""Judges: which of several answers is better, and how sure one may be of a win rate."""
