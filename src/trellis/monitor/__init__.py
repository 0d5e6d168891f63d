"""Watching a run: the live view, its health, sample tables, the history on disk, curves."""

from .completions import CompletionLog, read_completions, spread
from .curves import draw_curves
from .health import Health, read_health
from .history import History, read_history
from .panel_live import LiveView
from .panel_samples import SampleFile, read_samples
from .profile import Profile
from .progress import Progress
from .record import RECORD, RunRecord, read_record
from .rich_progress import RichProgressCallback
from .samples import literal, render, send, show

__all__ = [
    "CompletionLog",
    "Health",
    "History",
    "LiveView",
    "RECORD",
    "Profile",
    "Progress",
    "RichProgressCallback",
    "RunRecord",
    "SampleFile",
    "draw_curves",
    "literal",
    "read_completions",
    "read_health",
    "read_history",
    "read_record",
    "read_samples",
    "render",
    "send",
    "show",
    "spread",
]
