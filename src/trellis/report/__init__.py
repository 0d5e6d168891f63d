"""Runs as one page: what they were, what they did, and how they differ."""

from .page import write_page
from .pictures import write_pictures
from .reading import Run, read_runs

__all__ = ["Run", "read_runs", "write_page", "write_pictures"]
