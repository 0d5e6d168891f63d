"""`from trellis.rewards.other_rewards import …`: names of `trellis` under the path that existing scripts use."""

from ..rewards import get_cosine_scaled_reward, get_repetition_penalty_reward, get_soft_overlong_punishment

__all__ = ["get_cosine_scaled_reward", "get_repetition_penalty_reward", "get_soft_overlong_punishment"]
