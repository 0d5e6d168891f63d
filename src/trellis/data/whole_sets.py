"""Data sets (or lists of rows) as wholes, by TRL's names: pairs taken apart, prompts found, rows cut and packed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .chat import common_prefix
from .conversations import is_conversational
from .messages import Row
from .pack import joined, plan
from .source import is_stream

Columns = Mapping[str, Sequence[Any]]


def extract_prompt(example: Row) -> dict[str, Any]:
    """The row with what `chosen` and `rejected` begin with in common as its `prompt`, and the rest as its answers.

    Of texts a space before the difference belongs to the answers; neither answer becomes empty.
    """
    chosen, rejected = example["chosen"], example["rejected"]
    at = max(0, min(common_prefix(chosen, rejected), len(chosen) - 1, len(rejected) - 1))
    if at and chosen[at - 1] == " ":
        at -= 1
    rest = {name: value for name, value in example.items() if name != "prompt"}
    return {**rest, "prompt": chosen[:at], "chosen": chosen[at:], "rejected": rejected[at:]}


def maybe_extract_prompt(example: Row) -> Any:
    """`extract_prompt` of a pair without a prompt (or with one in another form than its answers); any other row itself."""
    if not {"chosen", "rejected"} <= set(example):
        return example
    chat = is_conversational({"chosen": example["chosen"]})
    if "prompt" in example and is_conversational({"prompt": example["prompt"]}) == chat:
        return example
    return extract_prompt(example)


def unpair_preference_dataset(dataset: Any, num_proc: int | None = None, desc: str | None = None) -> Any:
    """The pairs of a data set as answers with a label: of every thousand pairs the chosen ones (True), then the rejected ones."""
    return _mapped(dataset, _unpaired, ["chosen", "rejected"], num_proc=num_proc, desc=desc)


def maybe_unpair_preference_dataset(
    dataset: Any, num_proc: int | None = None, desc: str | None = None
) -> Any:
    """`unpair_preference_dataset` of pairs; any other data set itself."""
    paired = {"chosen", "rejected"} <= set(_columns(dataset))
    return unpair_preference_dataset(dataset, num_proc, desc) if paired else dataset


def _unpaired(columns: Columns) -> dict[str, list[Any]]:
    count = len(columns["chosen"])
    rest = {name: [*x, *x] for name, x in columns.items() if name not in ("chosen", "rejected")}
    answers = [*columns["chosen"], *columns["rejected"]]
    return {**rest, "completion": answers, "label": [True] * count + [False] * count}


def pack_dataset(
    dataset: Any, seq_length: int, strategy: str = "bfd", map_kwargs: dict[str, Any] | None = None
) -> Any:
    """The rows of a tokenised data set packed into rows of at most `seq_length` tokens, as `SFTConfig(packing=True)` packs them.

    Every column with one entry per token is packed, others are left out. "bfd" (what is too long is cut), "bfd_split" (it is
    split) add `seq_lengths`, by which a trainer keeps the texts apart; "wrapped" cuts one stream, without. Raises ValueError for
    another strategy, and for rows without tokens.
    """
    options = {"seq_length": seq_length, "strategy": strategy}
    plan([], seq_length, strategy)  # an error belongs before the first row
    return _mapped(dataset, _packed, None, fn_kwargs=options, **(map_kwargs or {}))


def _packed(columns: Columns, seq_length: int, strategy: str) -> dict[str, list[Any]]:
    lists = {name: x for name, x in columns.items() if all(map(_is_list, x))}
    if not lists:
        raise ValueError(f"no column of {sorted(columns)} holds lists of tokens; tokenize the rows first")
    lengths = [len(row) for row in next(iter(lists.values()))]
    same = {name: x for name, x in lists.items() if [len(row) for row in x] == lengths}
    rows = plan(lengths, seq_length, strategy)
    packed: dict[str, list[Any]] = {name: [joined(x, row) for row in rows] for name, x in same.items()}
    if strategy != "wrapped":
        packed["seq_lengths"] = [[b - a for _, a, b in row] for row in rows]
    return packed


def truncate_dataset(dataset: Any, max_length: int, map_kwargs: dict[str, Any] | None = None) -> Any:
    """The data set with every list (tensor, array) in its columns cut to its first `max_length` entries."""
    return _mapped(dataset, _cut, [], fn_kwargs={"max_length": max_length}, **(map_kwargs or {}))


def _cut(columns: Columns, max_length: int) -> dict[str, list[Any]]:
    return {name: [row[:max_length] if _is_list(row) else row for row in x] for name, x in columns.items()}


def _is_list(value: Any) -> bool:
    """Whether `value` has entries: a list, and what a formatted data set shows in its place; no scalar tensor, no text."""
    return bool(getattr(value, "shape", hasattr(value, "__len__"))) and not isinstance(value, str | Mapping)


def _columns(dataset: Any) -> list[str]:
    if isinstance(dataset, list):
        return list(dataset[0]) if dataset else []
    if isinstance(dataset, Mapping):
        return _columns(next(iter(dataset.values())))
    return list(dataset.column_names or next(iter(dataset), {}))


def _mapped(dataset: Any, function: Callable[..., Any], remove: list[str] | None, **options: Any) -> Any:
    """function of the columns of a thousand rows at a time, of any kind of data set; `remove`: columns that go (None: all)."""
    names = _columns(dataset) if remove is None else remove
    if isinstance(dataset, list):
        if not dataset:
            return []
        columns = {name: [row[name] for row in dataset] for name in _columns(dataset)}
        found = function(columns, **options.get("fn_kwargs", {}))
        return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
    if is_stream(dataset) or (isinstance(dataset, Mapping) and any(map(is_stream, dataset.values()))):
        options = {name: x for name, x in options.items() if name not in ("num_proc", "desc")}
    return dataset.map(function, batched=True, remove_columns=names or None, **options)
