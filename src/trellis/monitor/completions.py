"""Completion tables: what was sampled since the last log, with its rewards: in the terminal, in a file and in trackers."""

from __future__ import annotations

import json
import logging
import math
import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from .samples import send, show

logger = logging.getLogger(__name__)
FOLDER = "completions"
LIMIT = 20_000
"""Rows kept between two logs; of more, the newest."""
Row = dict[str, Any]
T = TypeVar("T")


class CompletionLog:
    """Gathers sampled rows and writes them at each log: one table with a row per completion.

    `show`: print the table, `count` of its rows (spread over them; None: all); `unique`: only the first completion of each
    prompt. Files go to `output_dir/completions/`. One process of a run has one.
    """

    def __init__(
        self, output_dir: str | Path, *, show: bool = True, count: int | None = None, unique: bool = False
    ) -> None:
        if count is not None and count < 1:
            raise ValueError(f"the number of completions to print must be at least 1, found {count}")
        self.folder = Path(output_dir) / FOLDER
        self.show, self.count, self.unique = show, count, unique
        self.rows: deque[Row] = deque(maxlen=LIMIT)

    def add(
        self,
        step: int,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        rewards: Mapping[str, Sequence[Any]],
        advantages: Any = None,
        extra: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        """Keep B completions that were sampled at `step`. Each column has B entries (lists, arrays or tensors); texts and
        messages stay what they are, a NaN reward is an empty cell, other values of `extra` that are no scalars become strings.

        Raises ValueError when a column has another length, or a name that the table has already.
        """
        columns = {"prompt": list(prompts), "completion": list(completions)}
        numbers = dict(rewards) if advantages is None else {**rewards, "advantage": advantages}
        for name, values in numbers.items():
            columns[name] = [_number(value) for value in _plain(values)]
        for name, values in (extra or {}).items():
            if name in columns:
                raise ValueError(
                    f"the completion table has a column {name!r} already; log under another name"
                )
            columns[name] = [_scalar(value) for value in _plain(values)]
        for name, values in columns.items():
            if len(values) != len(prompts):
                raise ValueError(f"{name!r} has {len(values)} entries for {len(prompts)} completions")
        for i in range(len(prompts)):
            self.rows.append({"step": step, **{name: values[i] for name, values in columns.items()}})

    def flush(self, step: int, callbacks: Iterable[Any] = ()) -> Path | None:
        """Print, write and send what was added since the last call; returns the file (None where nothing was added).

        `callbacks` are the trainer's, for `monitor.send`.
        """
        rows = one_per_prompt(self.rows) if self.unique else list(self.rows)
        self.rows.clear()
        if not rows:
            return None
        if self.show:
            show(spread(rows, self.count), title=f"completions, step {step}")
        path = write_table(rows, self.folder / f"completions_{step:05d}")
        send(rows, name="completions", step=step, callbacks=callbacks)
        return path


def write_table(rows: Sequence[Row], stem: Path) -> Path:
    """The rows as `stem`.parquet, or as JSON lines where pyarrow is not installed: aside first, then renamed, so that no reader
    sees half of a file."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = {name: _cells([row.get(name) for row in rows]) for name in names}
    aside = stem.with_name(f".{stem.name}.tmp")
    try:
        import_module("pyarrow")
        _write_parquet(table, aside)
        path = stem.with_suffix(".parquet")
    except ImportError:
        _say_once()
        _write_lines(table, aside)
        path = stem.with_suffix(".jsonl")
    os.replace(aside, path)
    return path


@cache
def _say_once() -> None:
    logger.warning("pyarrow is not installed: tables of samples are written as JSON lines")


def one_per_prompt(rows: Iterable[Row]) -> list[Row]:
    """The first row of each prompt."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(_text(row["prompt"]), row)
    return list(first.values())


def spread(rows: Sequence[T], count: int | None) -> Sequence[T]:
    """`count` of the rows, evenly spread over them, so that they are not all of one prompt."""
    if count is None or count >= len(rows):
        return rows
    return [rows[i * len(rows) // count] for i in range(count)]


def read_completions(folder: str | Path) -> list[Row]:
    """The rows of all completion tables of a run, in the order of their steps; `folder` is the run's directory."""
    rows: list[Row] = []
    for path in sorted((Path(folder) / FOLDER).glob("completions_*"), key=_step):
        if path.suffix == ".parquet":
            from pyarrow.parquet import ParquetFile

            rows += ParquetFile(path).read().to_pylist()
        else:
            rows += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return rows


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("completions_"))


def _plain(values: Any) -> list[Any]:
    return values.tolist() if hasattr(values, "tolist") else list(values)


def _scalar(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _number(value: Any) -> float | None:
    value = _scalar(value)
    return None if value is None or math.isnan(value) else float(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _cells(values: list[Any]) -> list[Any]:
    """The values of a column in one type: booleans, numbers, or texts (messages as JSON)."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool} or kinds <= {int} or kinds <= {float}:
        return values
    if kinds <= {int, float}:
        return [value if value is None else float(value) for value in values]
    return [value if value is None else _text(value) for value in values]


def _write_parquet(table: Mapping[str, list[Any]], path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(dict(table)), path)


def _write_lines(table: Mapping[str, list[Any]], path: Path) -> None:
    rows = (dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True))
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
