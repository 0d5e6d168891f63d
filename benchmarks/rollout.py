"""Sampling until a stop token: `trellis.rollout.sample` beside `model.generate` on the left-padded batch."""

from __future__ import annotations

import torch

from trellis.rollout import SamplingParams, sample

from .measure import Case
from .scoring import model_of

LONGEST, VOCABULARY = 64, 1_024
STOPS = frozenset(range(0, VOCABULARY, 24))  # a random model then writes about 24 tokens


def cases() -> list[Case]:
    """At most 64 tokens, most rows ending much earlier: four samples of sixteen short prompts, eight of two long ones."""
    return [_case("sample until stop", 16, 4, (4, 33)), _case("sample groups of 8", 2, 8, (150, 600))]


def _case(name: str, count: int, samples: int, between: tuple[int, int]) -> Case:
    model = model_of(VOCABULARY)
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(*between, (count,), generator=draw).tolist()
    prompts = [torch.randint(1, VOCABULARY, (n,), generator=draw).tolist() for n in lengths]
    width = max(lengths)
    ids = torch.tensor([[1] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    params = SamplingParams(max_new_tokens=LONGEST, stop_ids=STOPS)
    seeds = list(range(count * samples))

    def plain() -> None:
        torch.manual_seed(0)
        model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            max_new_tokens=LONGEST,
            eos_token_id=sorted(STOPS),
            pad_token_id=1,
            num_return_sequences=samples,
        )

    return Case(name, plain, lambda: sample(model, prompts, params, n=samples, seeds=seeds))
