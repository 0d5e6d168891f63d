"""`from trellis.trainer.ppo_config import …`: names of `trellis` under the path that existing scripts use."""

from ..trainers.ppo import PPOConfig

__all__ = ["PPOConfig"]
