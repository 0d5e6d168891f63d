"""Which prompts belong to which rollout: a function of the seed for a data set, of the position for a stream."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from ..data import prompt_indices
from .order import endless

Row = dict[str, Any]


class DataPrompts:
    """Prompts of a data set with a length, in epochs that are shuffled by the seed (or, without `shuffle`, as they stand)."""

    def __init__(self, data: Any, seed: int, *, shuffle: bool = True) -> None:
        self.data, self.seed, self.shuffle = data, seed, shuffle

    def rows(self, start: int, count: int, places: Sequence[int]) -> tuple[list[Row], list[int]]:
        """The prompts at `places` among the `count` from position `start` of the endless sequence; their numbers in the data."""
        picked = prompt_indices(start, count, len(self.data), self.seed, shuffle=self.shuffle)
        wanted = {place: self.data[picked[place]] for place in dict.fromkeys(places)}
        return [wanted[place] for place in places], [picked[place] for place in places]

    def first(self, count: int) -> list[Row]:
        """The first `count` rows of the data (fewer if there are not so many)."""
        return [self.data[i] for i in range(min(count, len(self.data)))]

    def epochs(self, prompts: int) -> float | None:
        """How many passes over the data `prompts` prompts are."""
        return prompts / len(self.data)


class StreamPrompts:
    """Prompts of a stream, as they come; it begins again at its end. Going back, as a second run does, reads from the start."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self._read: Iterator[Row] = iter(())
        self._position = -1
        self._window: tuple[int, list[Row]] = (-1, [])

    def rows(self, start: int, count: int, places: Sequence[int]) -> tuple[list[Row], list[int]]:
        """The prompts at `places` among the `count` from position `start`, and their positions."""
        if self._window[0] != start or len(self._window[1]) != count:
            self._window = (start, self._take(start, count))
        return [self._window[1][place] for place in places], [start + place for place in places]

    def _take(self, start: int, count: int) -> list[Row]:
        if self._position < 0 or self._position > start:
            self._read, self._position = iter(endless(self.data)), 0
        ahead = itertools.islice(self._read, start - self._position, start - self._position + count)
        found, self._position = list(ahead), start + count
        return found

    def first(self, count: int) -> list[Row]:
        """The first `count` rows."""
        return list(itertools.islice(iter(self.data), count))

    def epochs(self, prompts: int) -> float | None:
        """Unknown: a stream has no length."""
        return None


def prompts_of(data: Any, seed: int, *, shuffle: bool = True) -> DataPrompts | StreamPrompts:
    """The prompts of prepared `data`."""
    return DataPrompts(data, seed, shuffle=shuffle) if hasattr(data, "__len__") else StreamPrompts(data)
