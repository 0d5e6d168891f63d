"""Packing: many rows in one, a matter of data only. `seq_lengths` says where the rows are, and collating takes them apart again.

The segments of a packed row share nothing, on every attention backend, because no forward pass ever sees them joined unless
`scoring` knows how to keep them apart.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

STRATEGIES = ("bfd", "bfd_split", "wrapped")
BLOCK = 1000
"""Rows that are packed together: enough for 99 % full blocks, and few enough for a stream."""

Piece = tuple[int, int, int]
"""(row, start, stop): tokens start … stop of a row."""


def best_fit(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices of `lengths` in bins of at most `size`, best fit decreasing: the longest first, into the fullest bin it fits."""
    bins: list[list[int]] = []
    space: list[tuple[int, int]] = []  # (free, bin), sorted
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        at = bisect_left(space, (lengths[i], -1))
        free, chosen = space.pop(at) if at < len(space) else (size, len(bins))
        if chosen == len(bins):
            bins.append([])
        bins[chosen].append(i)
        insort(space, (free - lengths[i], chosen))
    return bins


def split_pieces(lengths: Sequence[int], size: int) -> list[Piece]:
    """Every row as pieces of at most `size` tokens, in order."""
    return [(i, a, min(a + size, n)) for i, n in enumerate(lengths) for a in range(0, n, size)]


def wrap(lengths: Sequence[int], size: int) -> Iterator[list[Piece]]:
    """The rows as one stream, cut every `size` tokens; the last block may be shorter."""
    block: list[Piece] = []
    free = size
    for i, length in enumerate(lengths):
        start = 0
        while start < length:
            stop = min(length, start + free)
            block.append((i, start, stop))
            free -= stop - start
            start = stop
            if free == 0:
                yield block
                block, free = [], size
    if block:
        yield block


def plan(lengths: Sequence[int], size: int, strategy: str) -> list[list[Piece]]:
    """The packed rows, each as the pieces it holds. Raises ValueError for an unknown strategy or a size below 2."""
    if strategy not in STRATEGIES:
        raise ValueError(f"packing_strategy={strategy!r} is not known; expected one of {list(STRATEGIES)}")
    if size < 2:
        raise ValueError(f"packing needs max_length >= 2, found {size}")
    if strategy == "wrapped":
        return list(wrap(lengths, size))
    limit = [min(n, size) for n in lengths]  # bfd cuts what is too long; the row functions have counted it
    pieces = (
        split_pieces(lengths, size)
        if strategy == "bfd_split"
        else [(i, 0, n) for i, n in enumerate(limit) if n]
    )
    return [[pieces[j] for j in bin_] for bin_ in best_fit([b - a for _, a, b in pieces], size)]


def joined(column: Sequence[Sequence[Any]], pieces: Sequence[Piece]) -> list[Any]:
    """The pieces of a column, end to end."""
    return [x for i, a, b in pieces for x in column[i][a:b]]


def pack_columns(columns: Mapping[str, Sequence[Any]], size: int, strategy: str) -> dict[str, list[Any]]:
    """A block of prepared rows as packed rows: concatenated `input_ids` and `loss_mask`, `seq_lengths`, `prompt_len` 0.

    The first token of every segment has no past in it and is not trained. Blocks in which nothing is trained are left out.
    """
    ids, masks = columns["input_ids"], columns["loss_mask"]
    out: dict[str, list[Any]] = {"input_ids": [], "loss_mask": [], "prompt_len": [], "seq_lengths": []}
    for pieces in plan([len(row) for row in ids], size, strategy):
        mask = [m for i, a, b in pieces for m in [0, *masks[i][a + 1 : b]]]
        if not any(mask):
            continue
        out["input_ids"].append(joined(ids, pieces))
        out["loss_mask"].append(mask)
        out["prompt_len"].append(0)
        out["seq_lengths"].append([b - a for _, a, b in pieces])
    return out


def pack(data: Any, size: int, strategy: str) -> Any:
    """A prepared data set (list, `datasets.Dataset` or stream) as packed rows of at most `size` tokens."""
    if not isinstance(data, list):
        names = list(data.column_names or ["input_ids", "loss_mask", "prompt_len"])
        options = {"size": size, "strategy": strategy}
        return data.map(pack_columns, batched=True, batch_size=BLOCK, fn_kwargs=options, remove_columns=names)
    packed: list[dict[str, Any]] = []
    for start in range(0, len(data), BLOCK):
        rows = data[start : start + BLOCK]
        columns = pack_columns(
            {k: [row[k] for row in rows] for k in ("input_ids", "loss_mask")}, size, strategy
        )
        packed += [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return packed


def segments(row: Mapping[str, Any]) -> Iterator[tuple[list[int], list[int]]]:
    """(ids, mask) of each segment of a packed row, or of the row itself where it is not packed."""
    ids, mask = row["input_ids"], row["loss_mask"]
    start = 0
    for length in row.get("seq_lengths") or [len(ids)]:
        yield ids[start : start + length], mask[start : start + length]
        start += length
