"""What a model on disk writes, and what another one on disk gives for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trellis.rewards import RewardSet
from trellis.rollout import Completion, SamplingParams, sample, stop_ids, to_batch
from trellis.scoring import score


@dataclass(frozen=True)
class Written:
    """Summaries of prompts: their prompts' and their own tokens, and their texts."""

    prompts: list[str]
    prompt_ids: list[list[int]]
    found: list[Completion]
    texts: list[str]


def write(
    model: Path, prompts: Sequence[str], *, length: int, seed: int, n: int = 1, temperature: float = 1.0
) -> Written:
    """`n` summaries of each prompt, of at most `length` tokens; equal models and seeds write the same."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    params = SamplingParams(length, temperature=temperature, stop_ids=stop_ids(tokenizer))
    ids = [tokenizer(text)["input_ids"] for text in prompts]
    found: list[Completion] = []
    for start in range(0, len(ids), 32):
        part = ids[start : start + 32]
        draws = [seed * 1_000_003 + (start * n) + i for i in range(len(part) * n)]
        with torch.no_grad():
            found += sample(policy, part, params, n=n, seeds=draws)
    every = [i for i in range(len(ids)) for _ in range(n)]
    texts = [tokenizer.decode(c.ids, skip_special_tokens=True) for c in found]
    return Written([prompts[i] for i in every], [ids[i] for i in every], found, texts)


def marks(model: Path, prompts: Sequence[str], texts: Sequence[str], finished: Sequence[bool]) -> list[float]:
    """A classifier's score of each text as the summary that follows its prompt."""
    ids: list[list[int]] = [[] for _ in texts]  # a classifier reads texts
    result = RewardSet(str(model))(
        prompts=list(prompts), completions=list(texts), completion_ids=ids, finished=list(finished)
    )
    return result.total.tolist()


@torch.no_grad()
def log_ratios(model: Path, start: Path, written: Written) -> list[float]:
    """Σ_t log π(y_t) − log π_start(y_t) of each summary; their mean estimates the KL where π wrote them at temperature 1."""
    pad = AutoTokenizer.from_pretrained(model).pad_token_id
    policies = [AutoModelForCausalLM.from_pretrained(p, dtype=torch.float32).eval() for p in (model, start)]
    found: list[float] = []
    for at in range(0, len(written.found), 64):
        batch = to_batch(written.prompt_ids[at : at + 64], written.found[at : at + 64], pad=pad)
        now, then = (score(policy, batch).logps for policy in policies)
        found += (now - then).sum(1).tolist()
    return found
