"""Watching a run: sample tables, the history on disk, curves."""

from .completions import CompletionLog, read_completions
from .curves import draw_curves
from .history import History, read_history
from .profile import Profile
from .progress import Progress
from .record import RECORD, RunRecord, read_record
from .samples import render, send, show

__all__ = [
    "CompletionLog",
    "History",
    "RECORD",
    "Profile",
    "Progress",
    "RunRecord",
    "draw_curves",
    "read_completions",
    "read_history",
    "read_record",
    "render",
    "send",
    "show",
]
