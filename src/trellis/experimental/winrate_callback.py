"""`from trellis.experimental.winrate_callback import …`: the class of `trellis` under a second path."""

from ..trainers.win_rate import WinRateCallback

__all__ = ["WinRateCallback"]
