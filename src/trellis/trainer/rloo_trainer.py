"""`from trellis.trainer.rloo_trainer import …`: names of `trellis` under the path that existing scripts use."""

from ..trainers.rloo import RLOOTrainer

__all__ = ["RLOOTrainer"]
