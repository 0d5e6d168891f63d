"""`from trellis.trainer.sft_trainer import …`: names of `trellis` under the path that existing scripts use."""

from ..trainers.sft import SFTTrainer

__all__ = ["SFTTrainer"]
