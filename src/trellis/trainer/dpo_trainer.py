"""`from trellis.trainer.dpo_trainer import …`: names of `trellis` under the path that existing scripts use."""

from ..data.padded import DataCollatorForPreference
from ..trainers.dpo import DPOTrainer

__all__ = ["DPOTrainer", "DataCollatorForPreference"]
