"""`from trellis.trainer.orpo_trainer import …`: names of `trellis` under the path that existing scripts use."""

from ..trainers.orpo import ORPOTrainer

__all__ = ["ORPOTrainer"]
