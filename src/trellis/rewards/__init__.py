"""Rewards: functions and models behind one call."""

from .library import (
    READY_REWARDS,
    accuracy_reward,
    get_cosine_scaled_reward,
    get_repetition_penalty_reward,
    get_soft_overlong_punishment,
    reasoning_accuracy_reward,
    think_format_reward,
)
from .request import RewardError, RewardRequest
from .reward_set import RewardResult, RewardSet

__all__ = [
    "READY_REWARDS",
    "RewardError",
    "RewardRequest",
    "RewardResult",
    "RewardSet",
    "accuracy_reward",
    "get_cosine_scaled_reward",
    "get_repetition_penalty_reward",
    "get_soft_overlong_punishment",
    "reasoning_accuracy_reward",
    "think_format_reward",
]
