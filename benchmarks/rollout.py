"""`python -m benchmarks rollout`: tokens per CPU second of our sampler, of `model.generate` on the left-padded batch, and of
transformers' continuous batching, on the same prompts.

All stop by chance, so what counts is a sampled token: a real one, none that follows a stop token.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaForCausalLM

from trellis.rollout import SamplingParams, sample

from .measure import Case
from .peers.compare import spread
from .peers.page import table
from .scoring import model_of

LONGEST, VOCABULARY = 64, 1_024
STOPS = frozenset(range(0, VOCABULARY, 24))  # a random model then writes about 24 tokens
Sampler = Callable[[int], int]
"""From a seed to how many tokens were sampled."""


@dataclass
class Work:
    """Prompts of which each is sampled `samples` times."""

    name: str
    model: LlamaForCausalLM
    prompts: list[list[int]]
    samples: int

    @classmethod
    def of(cls, name: str, count: int, samples: int, between: tuple[int, int], width: int = 128) -> Work:
        """`count` random prompts with lengths in `between`, for a random model."""
        draw = torch.Generator().manual_seed(0)
        lengths = torch.randint(*between, (count,), generator=draw).tolist()
        prompts = [torch.randint(1, VOCABULARY, (n,), generator=draw).tolist() for n in lengths]
        return cls(name, model_of(VOCABULARY, width), prompts, samples)

    def config(self) -> GenerationConfig:
        """What transformers' two samplers are told."""
        asked = {"do_sample": True, "top_k": 0, "max_new_tokens": LONGEST, "pad_token_id": 1}
        return GenerationConfig(**asked, eos_token_id=sorted(STOPS), num_return_sequences=self.samples)

    def ours(self, seed: int = 0) -> int:
        params = SamplingParams(max_new_tokens=LONGEST, stop_ids=STOPS)
        seeds = [seed * 1_000 + i for i in range(len(self.prompts) * self.samples)]
        return sum(len(c.ids) for c in sample(self.model, self.prompts, params, n=self.samples, seeds=seeds))

    def generate(self, seed: int = 0) -> int:
        torch.manual_seed(seed)
        width = max(map(len, self.prompts))
        ids = torch.tensor([[1] * (width - len(p)) + p for p in self.prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in self.prompts])
        found = self.model.generate(ids, attention_mask=mask, generation_config=self.config())
        return real_tokens(found[:, width:])

    def continuous(self, seed: int = 0) -> int:
        from transformers import ContinuousBatchingConfig

        torch.manual_seed(seed)
        pages = sum(2 + (len(p) + LONGEST) // 256 for p in self.prompts) * self.samples
        limits = ContinuousBatchingConfig(num_blocks=pages, max_batch_tokens=1_024, seed=seed)
        found = self.model.generate_batch(
            self.prompts, generation_config=self.config(), continuous_batching_config=limits
        )
        return sum(len(output.generated_tokens) for output in found.values())


def real_tokens(completions: Tensor) -> int:
    """Tokens of the rows up to and with the first stop token."""
    stops = torch.isin(completions, torch.tensor(sorted(STOPS)))
    before = stops.int().cumsum(1) - stops.int()
    return int((before == 0).sum())


def cases(*, small: bool = False) -> list[Case]:
    """At most 64 tokens, most rows ending much earlier: four samples of sixteen short prompts, eight of two long ones."""
    wanted = [("sample until stop", 16, 4, (4, 33)), ("sample groups of 8", 2, 8, (150, 600))]
    if small:
        wanted = [(name, 2, 2, (4, 9)) for name, *_ in wanted]
    found = [Work.of(*one) for one in wanted]
    return [Case(work.name, work.generate, work.ours) for work in found]


def speeds(samplers: Sequence[Sampler], repeats: int) -> list[list[float]]:
    """Tokens per CPU second of each, `repeats` times in turn, after one call each that is not counted."""
    found: list[list[float]] = [[] for _ in samplers]
    for number in range(-1, repeats):
        for sampler, rates in zip(samplers, found, strict=True):
            start = time.process_time()
            tokens = sampler(max(0, number))
            if number >= 0:
                rates.append(tokens / (time.process_time() - start))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks rollout", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="Turns; the median is shown.")
    parser.add_argument(
        "--tiny", action="store_true", help="Two short prompts: shows that it runs, not how fast."
    )
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    works = [
        Work.of("2 long prompts × 8", 2, 8, (150, 600), 512),
        Work.of("16 short prompts × 8", 16, 8, (16, 64), 512),
    ]
    if asked.tiny:
        works = [Work.of("tiny", 2, 2, (4, 9), 32)]
    print(
        table(
            (
                "prompts",
                "ours, tokens/CPU s",
                "generate",
                "continuous batching",
                "ours ÷ generate",
                "÷ continuous",
            ),
            [],
        )
    )
    for work in works:
        rates = speeds((work.ours, work.generate, work.continuous), asked.repeats)
        middle = [f"{sorted(r)[len(r) // 2]:,.0f}" for r in rates]
        ahead = [spread([a / b for a, b in zip(rates[0], other, strict=True)]) + "×" for other in rates[1:]]
        print(f"| {' | '.join([work.name, *middle, *ahead])} |", flush=True)
