"""Several engines as one: prompts are split among them, weights go to all."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from torch import nn

from ..rollout import Completion, Engine, SamplingParams


def shares(count: int, among: int) -> list[range]:
    """0 … count − 1 in `among` parts side by side, as equal as they can be."""
    size, more = divmod(count, among)
    starts = [part * size + min(part, more) for part in range(among + 1)]
    return [range(start, stop) for start, stop in zip(starts, starts[1:], strict=False)]


class Several:
    """Samples with all `engines` at once. Of several training processes, each asks its share of them: `rank` of `world`."""

    def __init__(self, engines: Sequence[Engine], *, rank: int = 0, world: int = 1) -> None:
        if not engines:
            raise ValueError("expected at least one engine, found none")
        self.engines = list(engines)
        self.mine = self.engines[rank::world] or [self.engines[rank % len(self.engines)]]
        self.exact = all(engine.exact for engine in self.engines)
        self.apart = all(getattr(engine, "apart", False) for engine in self.engines)

    def sync(self, model: nn.Module, step: int) -> None:
        """Every engine takes over the weights of `model`."""
        for engine in self.engines:
            engine.sync(model, step)

    def __call__(
        self, prompts: Sequence[Sequence[int]], params: SamplingParams, *, n: int = 1, seeds: Sequence[int]
    ) -> list[Completion]:
        """See `rollout.Sampler`; the first engine's error is raised when all have answered."""
        with ThreadPoolExecutor(len(self.mine)) as pool:
            asked = [
                pool.submit(
                    engine,
                    prompts[part.start : part.stop],
                    params,
                    n=n,
                    seeds=seeds[part.start * n : part.stop * n],
                )
                for engine, part in zip(self.mine, shares(len(prompts), len(self.mine)), strict=True)
                if len(part)
            ]
            return [completion for answer in asked for completion in answer.result()]

    def close(self) -> None:
        """Let go of all of them."""
        for engine in self.engines:
            engine.close()
