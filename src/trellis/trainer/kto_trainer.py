"""`from trellis.trainer.kto_trainer import …`: names of `trellis` under the path that existing scripts use."""

from ..trainers.kto import KTOTrainer

__all__ = ["KTOTrainer"]
