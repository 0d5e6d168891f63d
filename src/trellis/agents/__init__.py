"""Conversations of the policy with tools and environments, and the user's own way of sampling: drivers of rollouts."""

from .calls import tagged_calls
from .choice import driver_for
from .rollout_func import RolloutFunc
from .tool_loop import ToolLoop

__all__ = ["RolloutFunc", "ToolLoop", "driver_for", "tagged_calls"]
