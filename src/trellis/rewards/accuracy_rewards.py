"""`from trellis.rewards.accuracy_rewards import …`: names of `trellis` under the path that existing scripts use."""

from ..rewards import accuracy_reward, reasoning_accuracy_reward

__all__ = ["accuracy_reward", "reasoning_accuracy_reward"]
