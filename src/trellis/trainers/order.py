"""The order in which training reads its data, as a function of (seed, epoch): a resumed run finds its place again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset, Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler


class SeededOrder(Sampler):
    """The indices of a sampler that draws from the global random stream, drawn from (seed, epoch) instead."""

    def __init__(self, sampler: Sampler, seed: int) -> None:
        self.sampler, self.seed, self.epoch = sampler, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + self.epoch)
            order = list(self.sampler)
        return iter(order)


class Endless(IterableDataset):
    """A stream that starts again at its end. The loop counts a stream's epochs in steps, not in passes: at the end of a pass it
    would drop the micro-batches of a step that is not full, and a resumed run would look for its place in the first pass.

    Raises ValueError when a pass yields nothing.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[Any]:
        for epoch in itertools.count():
            if hasattr(self.stream, "set_epoch"):
                self.stream.set_epoch(epoch)
            seen = 0
            for row in self.stream:
                seen += 1
                yield row
            if not seen:
                raise ValueError(
                    "train_dataset is a stream without rows; expected at least one per data loader worker"
                )


def seeded(sampler: Sampler | None, seed: int) -> Sampler | None:
    """The same sampler, its randomness pinned where it has none of its own."""
    return SeededOrder(sampler, seed) if isinstance(sampler, LengthGroupedSampler) else sampler


def endless(dataset: Any) -> Any:
    """A stream repeated; anything with a length as it is."""
    return dataset if hasattr(dataset, "__len__") else Endless(dataset)
