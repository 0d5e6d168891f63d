"""Ready rewards, by the names that TRL gives them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .grading import is_right, shown
from .request import as_text, content

Verdicts = list[float | None]
REASONING_ENDS = ("</think>",)


def accuracy_reward(
    completions: Sequence[Any],
    solution: Sequence[Any] | None = None,
    log_extra: Callable[[str, list[Any]], None] | None = None,
    *,
    answer: Sequence[Any] | None = None,
    **columns: Any,
) -> Verdicts:
    """1 where a completion's final answer is that of the column `solution` (or `answer`), 0 where not, None where the reference
    cannot be read. Numbers are compared exactly (see trellis.rewards.answers); anything else by math-verify, where installed.
    """
    texts = [final_text(completion) for completion in completions]
    return _accuracies(texts, _references(solution, answer, len(texts)), log_extra)


def reasoning_accuracy_reward(
    completions: Sequence[Any],
    solution: Sequence[Any] | None = None,
    reasoning_delimiters: Sequence[str] | None = None,
    log_extra: Callable[[str, list[Any]], None] | None = None,
    *,
    answer: Sequence[Any] | None = None,
    **columns: Any,
) -> Verdicts:
    """As `accuracy_reward`, of what follows the last end of reasoning (`</think>`); 0 for reasoning that never ends."""
    ends = REASONING_ENDS if reasoning_delimiters is None else tuple(reasoning_delimiters)
    texts = [_after(final_text(completion), ends) for completion in completions]
    return _accuracies(texts, _references(solution, answer, len(texts)), log_extra)


accuracy_reward.one_of = reasoning_accuracy_reward.one_of = ("solution", "answer")  # type: ignore[attr-defined]


def think_format_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
    """1 for a text that begins with `<think>`, has no second one, and a `</think>` after it; else 0."""
    texts = [final_text(completion) for completion in completions]
    return [float(t.startswith("<think>") and t.count("<think>") == 1 and "</think>" in t) for t in texts]


@dataclass(frozen=True)
class SoftOverlongPunishment:
    """See `get_soft_overlong_punishment`."""

    max_completion_len: int
    soft_punish_cache: int
    __name__: ClassVar[str] = "soft_overlong_punishment_reward"

    def __post_init__(self) -> None:
        if not 0 <= self.soft_punish_cache <= self.max_completion_len or self.max_completion_len < 1:
            raise ValueError(
                f"max_completion_len={self.max_completion_len}, soft_punish_cache={self.soft_punish_cache}; expected "
                "0 <= soft_punish_cache <= max_completion_len, in tokens"
            )

    def __call__(self, completion_ids: Sequence[Sequence[int]], **columns: Any) -> list[float]:
        free = self.max_completion_len - self.soft_punish_cache
        return [self._of(len(ids), free) for ids in completion_ids]

    def _of(self, length: int, free: int) -> float:
        if length <= free:
            return 0.0
        return -1.0 if length > self.max_completion_len else (free - length) / self.soft_punish_cache


def get_soft_overlong_punishment(
    max_completion_len: int, soft_punish_cache: int
) -> Callable[..., list[float]]:
    """A reward that is 0 up to max_completion_len − soft_punish_cache tokens, falls to −1 at max_completion_len, and stays there
    (DAPO, 2503.14476, eq. 13)."""
    return SoftOverlongPunishment(max_completion_len, soft_punish_cache)


@dataclass(frozen=True)
class CosineScaled:
    """See `get_cosine_scaled_reward`."""

    max_len: int
    min_value_wrong: float
    max_value_wrong: float
    min_value_correct: float
    max_value_correct: float
    __name__: ClassVar[str] = "cosine_scaled_reward"
    one_of: ClassVar[tuple[str, ...]] = ("solution", "answer")

    def __post_init__(self) -> None:
        if self.max_len < 1:
            raise ValueError(f"max_len={self.max_len}; expected a number of tokens > 0")

    def __call__(
        self,
        completions: Sequence[Any],
        solution: Sequence[Any] | None = None,
        completion_ids: Sequence[Sequence[int]] = (),
        *,
        answer: Sequence[Any] | None = None,
        **columns: Any,
    ) -> Verdicts:
        right = accuracy_reward(completions, solution, answer=answer)
        return [self._of(r, len(ids)) for r, ids in zip(right, completion_ids, strict=True)]

    def _of(self, right: float | None, length: int) -> float | None:
        if right is None:
            return None
        short, long = (
            (self.max_value_correct, self.min_value_correct)
            if right
            else (self.min_value_wrong, self.max_value_wrong)
        )
        progress = min(length, self.max_len) / self.max_len
        return long + 0.5 * (short - long) * (1 + math.cos(math.pi * progress))


def get_cosine_scaled_reward(
    max_len: int,
    min_value_wrong: float = -1.0,
    max_value_wrong: float = -0.5,
    min_value_correct: float = 0.5,
    max_value_correct: float = 1.0,
) -> Callable[..., Verdicts]:
    """A reward for right answers that falls with the number of tokens, from max_value_correct to min_value_correct at `max_len`
    and beyond, and for wrong ones rises from min_value_wrong to max_value_wrong, each along a cosine (2502.03373, C.1)."""
    return CosineScaled(max_len, min_value_wrong, max_value_wrong, min_value_correct, max_value_correct)


@dataclass(frozen=True)
class RepetitionPenalty:
    """See `get_repetition_penalty_reward`."""

    ngram_size: int
    max_penalty: float
    __name__: ClassVar[str] = "repetition_penalty_reward"

    def __post_init__(self) -> None:
        if self.ngram_size < 1 or not self.max_penalty <= 0:
            raise ValueError(
                f"ngram_size={self.ngram_size}, max_penalty={self.max_penalty}; expected ngram_size >= 1 and max_penalty <= 0"
            )

    def __call__(self, completion_ids: Sequence[Sequence[int]], **columns: Any) -> list[float]:
        return [self._of(list(ids)) for ids in completion_ids]

    def _of(self, ids: list[int]) -> float:
        ngrams = [tuple(ids[i : i + self.ngram_size]) for i in range(len(ids) - self.ngram_size + 1)]
        return (1 - len(set(ngrams)) / len(ngrams)) * self.max_penalty if ngrams else 0.0


def get_repetition_penalty_reward(
    ngram_size: int = 3, max_penalty: float = -1.0
) -> Callable[..., list[float]]:
    """A reward of (1 − different n-grams / n-grams) · max_penalty, over token ids (2502.03373, C.2)."""
    return RepetitionPenalty(ngram_size, max_penalty)


def final_text(completion: Any) -> str:
    """A completion's text; of a conversation, what its last message says."""
    if isinstance(completion, str) or not completion:
        return as_text(completion)
    return content(completion[-1])


def _references(solution: Any, answer: Any, count: int) -> list[str | None]:
    """One reference per row: of `solution`, else of `answer`."""
    if solution is None and answer is None:
        raise ValueError(
            "the accuracy rewards compare with a column 'solution' or 'answer'; the data has neither"
        )
    nothing = [None] * count
    pairs = zip(nothing if solution is None else solution, nothing if answer is None else answer, strict=True)
    found = [a if s is None else s for s, a in pairs]
    return [None if value is None else str(value) for value in found]


def _after(text: str, ends: Sequence[str]) -> str | None:
    cut = max((text.rfind(end) + len(end) for end in ends if end in text), default=None)
    return None if cut is None else text[cut:]


def _accuracies(
    texts: Sequence[str | None], references: Sequence[str | None], log_extra: Callable[..., None] | None
) -> Verdicts:
    verdicts = [
        None if reference is None else is_right(text, reference)
        for text, reference in zip(texts, references, strict=True)
    ]
    if log_extra is not None:
        log_extra("final_answer", [None if text is None else shown(text) for text in texts])
    return verdicts


READY_REWARDS: dict[str, Callable[..., Any]] = {
    "accuracy": accuracy_reward,
    "reasoning_accuracy": reasoning_accuracy_reward,
    "think_format": think_format_reward,
    "soft_overlong_punishment": get_soft_overlong_punishment,
    "cosine_scaled": get_cosine_scaled_reward,
    "repetition_penalty": get_repetition_penalty_reward,
}
"""By short name: functions, and (get_…) what makes one from its arguments."""
