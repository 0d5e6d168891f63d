"""`from trellis.trainer.reward_trainer import …`: names of `trellis` under the path that existing scripts use."""

from ..data.padded import ChosenThenRejected as DataCollatorForPreference
from ..trainers.reward import RewardTrainer

__all__ = ["DataCollatorForPreference", "RewardTrainer"]
