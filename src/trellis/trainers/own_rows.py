"""Evaluation on several ranks: the loader fills its last batches up with rows seen before, which must not count twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Held:
    """Prepared rows of a held-out batch, collated once it is known which of them are this rank's own."""

    rows: list[dict[str, Any]]

    def own(self, state: Any, rank: int) -> Sequence[dict[str, Any]]:
        """The rows that no other rank and no earlier batch has; `state` is accelerate's GradientState.

        Of the ranks' last batches, laid end to end, the first `remainder` rows are the data's last (0: all are; −1: the data is
        a stream, of whose length nothing is known).
        """
        if not state.end_of_dataloader or state.remainder <= 0:
            return self.rows
        return self.rows[: max(0, state.remainder - rank * len(self.rows))]


@contextmanager
def swapped(thing: Any, name: str, value: Any) -> Iterator[None]:
    """`thing.name` is `value` inside."""
    before = getattr(thing, name)
    setattr(thing, name, value)
    try:
        yield
    finally:
        setattr(thing, name, before)
