"""`from trellis.trainer.reward_config import …`: names of `trellis` under the path that existing scripts use."""

from ..trainers.reward import RewardConfig

__all__ = ["RewardConfig"]
