"""`from trellis.trainer.sft_trainer import …`: names of `trellis` under the path that existing scripts use."""

from ..data.padded import DataCollatorForLanguageModeling
from ..trainers.sft import SFTTrainer

__all__ = ["DataCollatorForLanguageModeling", "SFTTrainer"]
