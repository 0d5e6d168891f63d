"""PairRM, a small model that compares two answers (Jiang et al. 2023, 2306.02561), through its own package."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from .pairwise import Asked, OrderedJudge, preferred


class PairRMJudge(OrderedJudge):
    """The model `llm-blender/PairRM`; needs the package llm-blender. The probability is the softmax of its two scores."""

    def __init__(self, *, both_orders: bool = False, seed: int = 0) -> None:
        super().__init__(both_orders=both_orders, seed=seed)
        self.temperature = 1.0
        self.blender = _blender()
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
        self.blender.loadranker("llm-blender/PairRM", device=device)

    def judge(
        self,
        prompts: Any,
        completions: Any,
        shuffle_order: bool = True,
        return_scores: bool = False,
        temperature: float = 1.0,
    ) -> list[Any]:
        """See `OrderedJudge`; `temperature` divides the scores."""
        self.temperature = temperature
        return super().judge(prompts, completions, shuffle_order, return_scores)

    def ask(self, asked: Asked) -> list[float | None]:
        """See `OrderedJudge`."""
        prompts, pairs = [prompt for prompt, _, _ in asked], [[first, second] for _, first, second in asked]
        found = self.blender.rank(prompts, pairs, return_scores=True, disable_tqdm=True)
        return [preferred(float(a), float(b), self.temperature) for a, b in found]


def _blender() -> Any:
    if find_spec("llm_blender") is None:
        raise ImportError(
            'PairRMJudge needs llm-blender; write: pip install "trellis-rl[pairrm]". Without it, RewardModelJudge takes any '
            "reward model"
        )
    from transformers.utils import hub

    if not hasattr(
        hub, "TRANSFORMERS_CACHE"
    ):  # the package reads it on import, and transformers 5 has it no longer
        hub.TRANSFORMERS_CACHE = None
    return import_module("llm_blender").Blender()
