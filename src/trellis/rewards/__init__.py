"""Rewards: functions and models behind one call."""

from .request import RewardError, RewardRequest
from .reward_set import RewardResult, RewardSet

__all__ = ["RewardError", "RewardRequest", "RewardResult", "RewardSet"]
