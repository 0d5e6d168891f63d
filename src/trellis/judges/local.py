"""Judges on this machine: a reward model, or a language model whose answer is read from its logits."""

from __future__ import annotations

import logging
import math
import os
from typing import Any

import torch
from torch import nn

from ..models import learned_positions, load_causal_lm, load_tokenizer
from ..models.sharded import whole
from ..rewards.classifiers import ClassifierReward
from ..rewards.request import RewardError, RewardRequest
from ..rollout.modes import evaluation
from ..scoring import score
from ..types import TokenBatch
from .base import BasePairwiseJudge, BaseRankJudge
from .pairwise import Asked, OrderedJudge, checked_pairs, preferred, rank
from .question import asked as question_about
from .question import checked_question

logger = logging.getLogger(__name__)


class RewardModelJudge(BasePairwiseJudge):
    """Prefers the answer with the higher score of a sequence classifier (a module, path or name): Bradley and Terry's
    1/(1 + e^−(s₀ − s₁)/temperature). It reads one answer at a time, so there is no order to shuffle."""

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module,
        processing_class: Any = None,
        *,
        temperature: float = 1.0,
        device: torch.device | str | None = None,
        rows: int = 64,
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, found {temperature}")
        self.reward = ClassifierReward(model, processing_class, device=device, rows=rows)
        self.temperature = temperature

    def judge(
        self, prompts: Any, completions: Any, shuffle_order: bool = True, return_scores: bool = False
    ) -> list[Any]:
        """Per prompt 0 or 1, and −1 where an answer cannot be read (equal scores: 0); with return_scores the probability that 0
        is better, NaN for −1."""
        pairs = checked_pairs(prompts, completions)
        found = scores_of(
            self.reward, [prompt for prompt in prompts for _ in range(2)], [a for p in pairs for a in p]
        )
        scores = [self._probability(*two) for two in zip(found[::2], found[1::2], strict=True)]
        if return_scores:
            return [math.nan if value is None else value for value in scores]
        return [rank(value, False) for value in scores]

    def _probability(self, first: Any, second: Any) -> float | None:
        for found in (first, second):
            if isinstance(found, RewardError):
                logger.warning("not judged: %s", found)
                return None
        return preferred(first, second, self.temperature)


class RewardModelRankJudge(BaseRankJudge):
    """Puts answers in the order of their scores by a sequence classifier."""

    def __init__(
        self, model: str | os.PathLike[str] | nn.Module, processing_class: Any = None, **options: Any
    ) -> None:
        self.reward = ClassifierReward(model, processing_class, **options)

    def judge(self, prompts: Any, completions: Any, shuffle_order: bool = True) -> list[list[int]]:
        """Per prompt the numbers of its completions, the best first; the earlier of two equal ones. Raises RewardError for an
        answer that cannot be read, or whose score is no number."""
        counts = [len(several) for several in completions]
        flat = [prompt for prompt, count in zip(prompts, counts, strict=True) for _ in range(count)]
        found = scores_of(self.reward, flat, [answer for several in completions for answer in several])
        scores = map(_sure, found)
        rows = [[next(scores) for _ in range(count)] for count in counts]
        return [sorted(range(len(row)), key=row.__getitem__, reverse=True) for row in rows]


def _sure(value: float | RewardError) -> float:
    if isinstance(value, RewardError):
        raise value
    if math.isnan(value):
        raise RewardError("the reward model gave no number (NaN), by which answers cannot be put in order")
    return value


def scores_of(reward: ClassifierReward, prompts: list[Any], answers: list[Any]) -> list[float | RewardError]:
    """The reward of each answer, as of one that came to its end."""
    return reward(RewardRequest(prompts, answers, [[] for _ in answers]))


class CausalLMJudge(OrderedJudge):
    """A causal language model (a module, path or name) that is asked which answer is better: the probability of the token "0"
    against that of "1", read from its logits. Nothing is sampled.

    `rows`: pairs read at once. A pair that is longer than the model's positions is invalid.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module,
        processing_class: Any = None,
        *,
        system_prompt: str | None = None,
        both_orders: bool = True,
        seed: int = 0,
        device: torch.device | str | None = None,
        dtype: str | None = None,
        rows: int = 8,
    ) -> None:
        super().__init__(both_orders=both_orders, seed=seed)
        named = isinstance(model, str | os.PathLike)
        self.question = checked_question(system_prompt)
        self.model: Any = load_causal_lm(model, {"dtype": dtype} if named and dtype else None)
        if device is not None:
            self.model.to(device)
        self.tokenizer = load_tokenizer(processing_class, model)
        self.limit, self.rows = learned_positions(self.model), rows
        self._warned: set[str] = set()

    def ask(self, asked: Asked) -> list[float | None]:
        """See `OrderedJudge`."""
        read = [self.tokens(question_about(self.question, *triple)) for triple in asked]
        found: list[float | None] = [None] * len(asked)
        order = [i for i, (context, _, _) in enumerate(read) if self._fits(len(context) + 1)]
        order.sort(key=lambda i: len(read[i][0]))
        with torch.no_grad(), whole(self.model), evaluation(self.model):
            for start in range(0, len(order), self.rows):
                part = order[start : start + self.rows]
                for i, value in zip(part, self._read([read[i] for i in part]), strict=True):
                    found[i] = value
        return found

    def tokens(self, question: str) -> tuple[list[int], int, int]:
        """What the model reads, and the two tokens between which it then chooses. Raises ValueError where "0" and "1" are one."""
        if getattr(self.tokenizer, "chat_template", None):
            turns = [{"role": "user", "content": question}]
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            zero, one = (self.tokenizer(text + n, add_special_tokens=False)["input_ids"] for n in "01")
        else:
            zero, one = (self.tokenizer(f"{question}\n\nAnswer: {n}")["input_ids"] for n in "01")
        # Where a tokenizer writes " 0" in two pieces, the first may be shared: the answer is where the two part.
        same = next((i for i, pair in enumerate(zip(zero, one, strict=False)) if pair[0] != pair[1]), None)
        if not same:
            raise ValueError(
                "the judge's tokenizer writes 0 and 1 alike; it needs a tokenizer that tells them apart"
            )
        return list(zero[:same]), zero[same], one[same]

    def _read(self, rows: list[tuple[list[int], int, int]]) -> list[float | None]:
        ids = [[*context, answer] for context, *answers in rows for answer in answers]
        batch = TokenBatch.from_lists(
            ids,
            [[0] * (len(row) - 1) + [1] for row in ids],
            group=[i // 2 for i in range(len(ids))],
            prompt_len=[len(row) - 1 for row in ids],
        ).to(next(self.model.parameters()).device)
        logps = score(self.model, batch).logps.double().sum(1).view(-1, 2)
        mass = float(logps.exp().sum(1).mean())
        if mass < 0.1:
            self._say_once(
                "mass", f"only {mass:.1%} of its probability is on 0 and 1: it hardly answers the question"
            )
        return torch.softmax(logps, dim=1)[:, 0].tolist()

    def _fits(self, length: int) -> bool:
        if self.limit and length > self.limit:
            self._say_once(
                "long", f"it reads {self.limit} tokens, a question has {length}: such pairs are invalid"
            )
            return False
        return True

    def _say_once(self, what: str, text: str) -> None:
        if what not in self._warned:
            logger.warning(
                "the judge %s: %s", getattr(self.model.config, "_name_or_path", "") or "model", text
            )
        self._warned.add(what)
