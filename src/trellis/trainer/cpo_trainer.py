"""`from trellis.trainer.cpo_trainer import …`: names of `trellis` under the path that existing scripts use."""

from ..trainers.cpo import CPOTrainer

__all__ = ["CPOTrainer"]
