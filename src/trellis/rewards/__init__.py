"""Rewards: functions and models behind one call.

The names load on first use: the process of an isolated reward needs neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .isolation import isolated
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
    "isolated",
    "reasoning_accuracy_reward",
    "think_format_reward",
]
_HOME = {
    "RewardError": "request",
    "RewardRequest": "request",
    "RewardResult": "reward_set",
    "RewardSet": "reward_set",
    "isolated": "isolation",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME.get(name, 'library')}", __name__), name)
