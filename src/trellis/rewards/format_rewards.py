"""`from trellis.rewards.format_rewards import …`: names of `trellis` under the path that existing scripts use."""

from ..rewards import think_format_reward

__all__ = ["think_format_reward"]
