"""What is asked of a sampler, and what comes back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen. Filters apply in this order: repetition penalty, temperature, top-k, top-p, min-p.

    max_new_tokens: the longest completion; temperature > 0 divides the logits; top_k = 0, top_p = 1, min_p = 0 and
    repetition_penalty = 1 switch their filter off; stop_ids: a completion ends with the first of these (which it keeps);
    greedy: the most likely token.

    Raises ValueError for a value outside its range.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    stop_ids: frozenset[int] = field(default_factory=frozenset)
    greedy: bool = False
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        _check(self.max_new_tokens >= 1, f"max_new_tokens must be at least 1, found {self.max_new_tokens}")
        _check(
            math.isfinite(self.temperature) and self.temperature > 0,
            f"temperature must be above 0, found {self.temperature}; for the most likely token use greedy=True",
        )
        _check(self.top_k >= 0, f"top_k must be 0 (off) or a number of tokens, found {self.top_k}")
        _check(0 < self.top_p <= 1, f"top_p must be in (0, 1], found {self.top_p}; 1 switches it off")
        _check(0 <= self.min_p <= 1, f"min_p must be in [0, 1], found {self.min_p}; 0 switches it off")
        _check(
            math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0,
            f"repetition_penalty must be above 0, found {self.repetition_penalty}; 1 switches it off",
        )
        object.__setattr__(self, "stop_ids", frozenset(int(i) for i in self.stop_ids))

    @property
    def filters(self) -> bool:
        """Whether tokens are drawn from less than the full distribution."""
        narrowed = self.top_k > 0 or self.top_p < 1 or self.min_p > 0
        return self.greedy or narrowed or self.repetition_penalty != 1


@dataclass(frozen=True)
class Completion:
    """What came after one prompt, token by token.

    ids: the tokens, with the stop token if there was one; mask: which of them the policy sampled (None: all; what tools and
    environments said lies between). Of the sampled ones alone: logps, the log-probability of each under the model's full
    distribution at the sampling temperature, and sampler_logps, under the filtered distribution it was drawn from (0 if greedy).
    messages: what was said, where that was a conversation of more than one message.
    """

    ids: list[int]
    logps: list[float]
    sampler_logps: list[float]
    finish_reason: Literal["stop", "length"]
    mask: list[bool] | None = None
    messages: list[dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        sampled = len(self.ids) if self.mask is None else sum(self.mask)
        _check(
            self.mask is None or len(self.mask) == len(self.ids),
            f"{len(self.ids)} tokens, {len(self.mask or ())} mask entries",
        )
        _check(
            len(self.logps) == len(self.sampler_logps) == sampled,
            f"{sampled} sampled tokens need as many logps and sampler_logps, not {len(self.logps)} and {len(self.sampler_logps)}",
        )

    @property
    def sampled(self) -> list[bool]:
        """Which of ids the policy sampled."""
        return [True] * len(self.ids) if self.mask is None else self.mask

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class RolloutStats:
    """The work that sampling took, added up over calls, and what of it had to be.

    decode_steps: forward passes of one token per row; row_steps: rows in those passes together; useful_steps: those of rows that
    were not done; prefill_tokens: prompt tokens read; useful_prefill: each prompt of a call once; pad_tokens: padding read beside
    them; sampled_tokens: what came of it.
    """

    decode_steps: int = 0
    row_steps: int = 0
    useful_steps: int = 0
    prefill_tokens: int = 0
    useful_prefill: int = 0
    pad_tokens: int = 0
    sampled_tokens: int = 0
