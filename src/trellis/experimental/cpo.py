"""`from trellis.experimental.cpo import …`: the classes of `trellis` under a second path."""

from ..trainers.cpo import CPOConfig, CPOTrainer

__all__ = ["CPOConfig", "CPOTrainer"]
