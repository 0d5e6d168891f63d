"""One door for every kind of data set: a list of rows or strings, a `datasets.Dataset`, or a stream."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .formats import Schema

Prepared = Any
"""A `datasets.Dataset` or `IterableDataset` where one was given, otherwise a list of dicts."""


def is_dataset(data: Any) -> bool:
    """Whether `data` is a `datasets.Dataset` (decided without importing the package)."""
    module = sys.modules.get("datasets")
    return module is not None and isinstance(data, module.Dataset)


def is_stream(data: Any) -> bool:
    """Whether `data` is a `datasets.IterableDataset`."""
    module = sys.modules.get("datasets")
    return module is not None and isinstance(data, module.IterableDataset)


def as_source(data: Any, owner: str, text_column: str) -> Prepared:
    """`data` as a list of dicts or a `datasets` object. A list of strings (or of conversations) becomes rows of `text_column`.

    Raises TypeError for what is no data set, ValueError for an empty one.
    """
    if is_stream(data):
        return data
    if isinstance(data, Mapping):
        raise TypeError(
            f"{owner}: found a dict of splits {sorted(map(str, data))}, expected one data set. "
            f"Write {owner}=dataset[{str(next(iter(data), 'train'))!r}]."
        )
    if isinstance(data, str) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise TypeError(
            f"{owner}: found {type(data).__name__}, expected a datasets.Dataset, a datasets.IterableDataset, a list of dicts or "
            "a list of strings. Write datasets.load_dataset(…, split='train'), or IterableDataset.from_generator for a generator."
        )
    if len(data) == 0:
        raise ValueError(
            f"{owner}: found 0 rows, expected at least 1. Check the split, the filter or the path it was loaded from."
        )
    return _unformatted(data) if is_dataset(data) else _as_rows(data, owner, text_column)


def _unformatted(data: Any) -> Any:
    """A `datasets.Dataset` whose rows hold Python's own lists and numbers; of the columns that its format shows."""
    shown = data.format
    if shown["type"] is None:
        return data
    hidden = set(data.column_names) - set(shown["columns"]) if not shown["output_all_columns"] else set()
    return data.with_format(None).remove_columns(sorted(hidden))


def _as_rows(data: Sequence[Any], owner: str, text_column: str) -> list[dict[str, Any]]:
    rows = [_read(data, i, owner) for i in range(len(data))]
    if isinstance(rows[0], Mapping):
        wrong = next((i for i, row in enumerate(rows) if not isinstance(row, Mapping)), None)
        if wrong is not None:
            raise TypeError(f"{owner}: row 0 is a dict but row {wrong} is {type(rows[wrong]).__name__}")
        return [dict(row) for row in rows]
    wrong = next((i for i, row in enumerate(rows) if not isinstance(row, str | list)), None)
    if wrong is not None:
        raise TypeError(
            f"{owner}: row {wrong} is {type(rows[wrong]).__name__}, expected a dict, a string or a list of messages. "
            f"Write rows = [{{{text_column!r}: text}} for text in texts]."
        )
    return [{text_column: row} for row in rows]


def _read(data: Sequence[Any], index: int, owner: str) -> Any:
    try:
        return data[index]
    except Exception as error:  # code of the user's
        raise ValueError(
            f"{owner}: row {index} of {len(data)} cannot be read ({type(error).__name__}: {error})"
        ) from error


def first_row(data: Prepared, owner: str) -> dict[str, Any]:
    """The first row. Raises ValueError where a stream has none."""
    row = next(iter(data), None)
    if row is None:
        raise ValueError(f"{owner}: the stream gave 0 rows, expected at least 1")
    return dict(row)


def columns_of(data: Prepared, owner: str) -> list[str]:
    """The columns of a data set; of a list, those that every row has."""
    if is_dataset(data):
        return list(data.column_names)
    if is_stream(data):
        return list(data.column_names or first_row(data, owner))
    common = set(data[0]).intersection(*data)
    return [name for name in data[0] if name in common]


def schema_of(data: Prepared, owner: str, find: Callable[..., Schema], **options: Any) -> Schema:
    """find(columns, owner=, **options) of all columns that occur. Raises ValueError where a row lacks one that is read."""
    if not isinstance(data, list):
        return find(columns_of(data, owner), owner=owner, **options)
    schema = find(list(dict.fromkeys(name for row in data for name in row)), owner=owner, **options)
    for column in schema.columns.values():
        lacking = next((i for i, row in enumerate(data) if column not in row), None)
        if lacking is not None:
            raise ValueError(
                f"{owner}, row {lacking}: has no column {column!r}, which other rows have; found "
                f"{sorted(map(str, data[lacking]))}. Expected the same columns in every row: add it, or leave the row out."
            )
    return schema


def map_rows(
    data: Prepared,
    function: Callable[..., dict[str, Any]],
    options: Mapping[str, Any],
    *,
    owner: str,
    keep: Sequence[str] = (),
    num_proc: int | None = None,
) -> Prepared:
    """function(row, index, **options) of every row, beside the columns in `keep`; an error names the row.

    `datasets` results are cached under a fingerprint of the data, the tokenizer's content, the options and this package's
    code, so a second start tokenises nothing.
    """
    arguments: dict[str, Any] = {"function": function, "owner": owner, "options": dict(options)}
    if isinstance(data, list):
        return [{k: row[k] for k in keep} | named_row(row, i, **arguments) for i, row in enumerate(data)]
    drop = [name for name in columns_of(data, owner) if name not in keep]
    if is_stream(data):
        return data.map(named_row, with_indices=True, fn_kwargs=arguments, remove_columns=drop)
    return data.map(
        named_row,
        with_indices=True,
        fn_kwargs=arguments,
        remove_columns=drop,
        num_proc=num_proc,
        new_fingerprint=fingerprint(data, function, options),
        desc=f"{owner}: {function.__name__}",
    )


def named_row(
    row: Mapping[str, Any],
    index: int,
    function: Callable[..., dict[str, Any]],
    owner: str,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """function(row, index, **options), with the row's number in front of an error's text."""
    try:
        return function(row, index, **options)
    except ValueError as error:
        raise ValueError(f"{owner}, row {index}: {error}") from error
    except Exception as error:  # a tokenizer's or a template's; whatever it is, the row is the news
        raise ValueError(f"{owner}, row {index}: cannot be read ({type(error).__name__}: {error})") from error


def column(data: Prepared, name: str) -> list[Any]:
    """One column of a list or `datasets.Dataset` as a list."""
    return [row[name] for row in data] if isinstance(data, list) else list(data[name])


def select(data: Prepared, indices: Sequence[int]) -> Prepared:
    """The rows at `indices` (all of them: the data itself)."""
    if len(indices) == len(data):
        return data
    return [data[i] for i in indices] if isinstance(data, list) else data.select(indices)


def drop_columns(data: Prepared, names: Sequence[str]) -> Prepared:
    """The data without the columns `names`."""
    if isinstance(data, list):
        return [{k: v for k, v in row.items() if k not in names} for row in data]
    return data.remove_columns(list(names))


def fingerprint(data: Any, function: Callable[..., Any], options: Mapping[str, Any]) -> str | None:
    """A name for function(data) that is the same in the next process; None where a part has no stable content."""
    parts = [str(data._fingerprint), function.__qualname__, _code()]
    for key, value in sorted(options.items()):
        described = _describe(value)
        if described is None:
            return None
        parts.append(f"{key}={described}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _describe(value: Any) -> str | None:
    if is_dataclass(value):
        pieces = [(f.name, _describe(getattr(value, f.name))) for f in fields(value)]
        return None if any(text is None for _, text in pieces) else repr(pieces)
    if hasattr(value, "backend_tokenizer"):
        return _tokenizer_content(value)
    plain = isinstance(value, str | int | float | bool | tuple | list | dict | frozenset | type(None))
    return repr(sorted(value) if isinstance(value, frozenset) else value) if plain else None


def _tokenizer_content(tokenizer: Any) -> str:
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["padding"] = content["truncation"] = None  # calls change these two; they do not change ids
    text = json.dumps(
        [content, str(tokenizer.chat_template), str(tokenizer.special_tokens_map)], sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _code() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
