"""What a policy is worth: score, the judge's verdict, KL to where it started, and variety."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..rewards import RewardSet
from ..rollout import SamplingParams, sample, stop_ids, to_batch
from ..scoring import score
from .judge import Judge


@dataclass(frozen=True)
class Measure:
    """Means over sampled completions. score: the reward model's; judge: share that the judge calls praise; kl: sum of log-ratios
    to the SFT policy per completion; distinct: distinct word pairs over all word pairs; stopped: share that ended by itself.
    """

    score: float
    judge: float
    kl: float
    distinct: float
    stopped: float
    rows: list[dict[str, Any]] = field(default_factory=list, repr=False)


def distinct_bigrams(texts: Sequence[str]) -> float:
    """Distinct pairs of neighbouring words over all of them; near 1 is varied, near 0 repeats itself."""
    pairs = [pair for text in texts for pair in zip(text.split(), text.split()[1:], strict=False)]
    return len(set(pairs)) / max(1, len(pairs))


@torch.no_grad()
def measure(
    policy: Path, sft: Path, reward: Path, judge: Judge, prompts: Sequence[dict[str, str]], *, seed: int = 0
) -> Measure:
    """Sample one completion per prompt at temperature 1, and judge them; the same seed gives equal draws to equal policies."""
    tokenizer = AutoTokenizer.from_pretrained(policy)
    model, start = (
        AutoModelForCausalLM.from_pretrained(p, dtype=torch.float32).eval() for p in (policy, sft)
    )
    texts = [row["prompt"] for row in prompts]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    params = SamplingParams(max_new_tokens=14, stop_ids=stop_ids(tokenizer))
    found = sample(model, ids, params, seeds=[seed * 1_000_003 + i for i in range(len(ids))])
    batch = to_batch(ids, found, pad=tokenizer.pad_token_id)
    kl = (score(model, batch).logps - score(start, batch).logps).sum(1)
    answers = [tokenizer.decode(c.ids, skip_special_tokens=True) for c in found]
    finished = [c.finish_reason == "stop" for c in found]
    scores = RewardSet(str(reward))(
        prompts=texts, completions=answers, completion_ids=[c.ids for c in found], finished=finished
    )
    verdicts = judge.approves([p + a for p, a in zip(texts, answers, strict=True)])
    rows = [
        {"query": p, "response": a, "score": s, "judge": "praise" if v else "complaint"}
        for p, a, s, v in zip(texts, answers, scores.total.tolist(), verdicts, strict=True)
    ]
    return Measure(
        score=float(scores.total.mean()),
        judge=sum(verdicts) / len(verdicts),
        kl=float(kl.mean()),
        distinct=distinct_bigrams([p + a for p, a in zip(texts, answers, strict=True)]),
        stopped=sum(finished) / len(finished),
        rows=rows,
    )
