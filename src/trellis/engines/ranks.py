"""Processes that ask one engine: together, in rounds, until none of them asks any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist

from ..rollout import Completion, SamplingParams

T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """What one process wants sampled; see `rollout.Sampler`."""

    prompts: Sequence[Sequence[int]]
    params: SamplingParams
    n: int
    seeds: Sequence[int]

    @property
    def rows(self) -> int:
        """How many completions it gets."""
        return len(self.prompts) * self.n


@dataclass(frozen=True)
class Failed:
    """What went wrong on another rank."""

    message: str


def on_first(call: Callable[[], T], world: int) -> T:
    """What rank 0's `call()` returns, on every rank; where it raises, every rank raises."""
    if world == 1:
        return call()
    box: list[Any] = [None]
    error: Exception | None = None
    if dist.get_rank() == 0:
        try:
            box = [call()]
        except Exception as found:  # the other ranks wait, whatever it was
            error, box = found, [Failed(f"{type(found).__name__}: {found}")]
    dist.broadcast_object_list(box, src=0)
    if error is not None:
        raise error
    if isinstance(box[0], Failed):
        raise RuntimeError(f"on rank 0: {box[0].message}")
    return box[0]


class Together:
    """Rounds of asking. In each, every rank of `group` says what it wants, or that it wants nothing more; `answer` gets all asks
    (on every rank) and returns all completions. A rank that fails ends the rounds on all of them."""

    def __init__(self, answer: Callable[[list[Ask]], list[list[Completion]]], group: Any = None) -> None:
        self._answer, self._group = answer, group
        self.open = False

    @contextmanager
    def rounds(self) -> Iterator[None]:
        """Until all ranks have left this block, each keeps the others company."""
        self.open = True
        try:
            yield
            while self.ask(None) is not None:
                pass
        except BaseException as error:
            if self.open:  # this rank alone failed: the others must not wait for it
                self._exchange(Failed(f"{type(error).__name__}: {error}"))
            raise
        finally:
            self.open = False

    def ask(self, mine: Ask | None) -> list[Completion] | None:
        """One round: this rank's completions; None when no rank asked."""
        said = self._exchange(mine)
        failed = [
            f"on rank {rank}: {one.message}" for rank, one in enumerate(said) if isinstance(one, Failed)
        ]
        if failed:
            self.open = False
            raise RuntimeError("; ".join(failed))
        asks = [one for one in said if isinstance(one, Ask)]
        if not asks:
            return None
        try:
            answers = iter(self._answer(asks))
        except Exception:
            self.open = False  # every rank gets this error
            raise
        per_rank = [None if one is None else next(answers) for one in said]
        return per_rank[dist.get_rank(self._group)] or []

    def _exchange(self, mine: Ask | Failed | None) -> list[Ask | Failed | None]:
        said: list[Any] = [None] * dist.get_world_size(self._group)
        dist.all_gather_object(said, mine, group=self._group)
        return said


def merged(asks: Sequence[Ask], sample: Callable[[Ask], list[Completion]]) -> list[list[Completion]]:
    """The completions of each ask, asks of one kind (n, params) sampled as one, and equal ones once."""
    if len(asks) > 1 and all(ask == asks[0] for ask in asks):  # all ranks evaluate the same prompts
        return [sample(asks[0])] * len(asks)
    kinds: dict[tuple[int, SamplingParams], list[int]] = {}
    for number, ask in enumerate(asks):
        kinds.setdefault((ask.n, ask.params), []).append(number)
    found: dict[int, list[Completion]] = {}
    for (n, params), numbers in kinds.items():
        prompts = [prompt for number in numbers for prompt in asks[number].prompts]
        done = iter(sample(Ask(prompts, params, n, [s for number in numbers for s in asks[number].seeds])))
        for number in numbers:
            found[number] = [next(done) for _ in range(asks[number].rows)]
    return [found[number] for number in range(len(asks))]
