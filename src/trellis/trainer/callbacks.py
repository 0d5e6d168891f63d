"""`from trellis.trainer.callbacks import …`: names of `trellis` under the path that existing scripts use."""

from ..monitor import RichProgressCallback
from ..trainers.bema import BEMACallback
from ..trainers.follow import SyncRefModelCallback
from ..trainers.log_completions import LogCompletionsCallback
from ..trainers.merging import MergeModelCallback
from ..trainers.win_rate import WinRateCallback

__all__ = [
    "BEMACallback",
    "LogCompletionsCallback",
    "MergeModelCallback",
    "RichProgressCallback",
    "SyncRefModelCallback",
    "WinRateCallback",
]
