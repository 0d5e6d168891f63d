"""Judges: which of two answers is better, how often one set of answers beats another, and how sure that is.

The names load on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .answers import write_answers
    from .base import AllTrueJudge, BaseBinaryJudge, BaseJudge, BasePairwiseJudge, BaseRankJudge
    from .comparison import Comparison, compare
    from .endpoint import EndpointJudge, HfPairwiseJudge, OpenAIPairwiseJudge
    from .local import CausalLMJudge, RewardModelJudge, RewardModelRankJudge
    from .names import judge_named
    from .pair_rm import PairRMJudge
    from .pairwise import OrderedJudge
    from .votes import WinRate, length_controlled_win_rate, win_rate

_HOME = {
    "AllTrueJudge": "base",
    "BaseBinaryJudge": "base",
    "BaseJudge": "base",
    "BasePairwiseJudge": "base",
    "BaseRankJudge": "base",
    "CausalLMJudge": "local",
    "Comparison": "comparison",
    "EndpointJudge": "endpoint",
    "HfPairwiseJudge": "endpoint",
    "OpenAIPairwiseJudge": "endpoint",
    "OrderedJudge": "pairwise",
    "PairRMJudge": "pair_rm",
    "RewardModelJudge": "local",
    "RewardModelRankJudge": "local",
    "WinRate": "votes",
    "compare": "comparison",
    "judge_named": "names",
    "length_controlled_win_rate": "votes",
    "win_rate": "votes",
    "write_answers": "answers",
}
__all__ = [
    "AllTrueJudge",
    "BaseBinaryJudge",
    "BaseJudge",
    "BasePairwiseJudge",
    "BaseRankJudge",
    "CausalLMJudge",
    "Comparison",
    "EndpointJudge",
    "HfPairwiseJudge",
    "OpenAIPairwiseJudge",
    "OrderedJudge",
    "PairRMJudge",
    "RewardModelJudge",
    "RewardModelRankJudge",
    "WinRate",
    "compare",
    "judge_named",
    "length_controlled_win_rate",
    "win_rate",
    "write_answers",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
