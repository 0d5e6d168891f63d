"""`from trellis.experimental.kto import …`: the classes of `trellis` under a second path."""

from ..trainers.kto import KTOConfig, KTOTrainer

__all__ = ["KTOConfig", "KTOTrainer"]
