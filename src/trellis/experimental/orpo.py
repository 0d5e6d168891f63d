"""`from trellis.experimental.orpo import …`: the classes of `trellis` under a second path."""

from ..trainers.orpo import ORPOConfig, ORPOTrainer

__all__ = ["ORPOConfig", "ORPOTrainer"]
