"""The two sides that `trellis judge` compares: prompts, and the answers of a model, a file or a column."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

COLUMN = "column:"


def prompts_of(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows with `prompt` and the data set's other columns. Raises ValueError where there are none."""
    column = asked.prompt_column
    if asked.dataset_name:
        from .sources import load_splits

        split = asked.dataset_split
        data = load_splits(asked.dataset_name, None, (split, split), False)[split]
        name, rows = (
            asked.dataset_name,
            list(data.select(range(min(len(data), asked.num_examples or len(data))))),
        )
    else:
        file = next((name for name in (asked.model, asked.against) if _is_file(name)), None)
        if file is None:
            raise ValueError("two models need prompts to answer: write --dataset_name DATA")
        name, rows = file, rows_of(file)[: asked.num_examples]
    if not rows:
        raise ValueError(f"{name} has 0 rows, expected at least 1")
    if column not in rows[0]:
        raise ValueError(
            f"{name} has no column {column!r}; it has {', '.join(rows[0])} (choose with --prompt_column)"
        )
    return [{**row, "prompt": row[column]} for row in rows]


def side(name: str, rows: list[dict[str, Any]], asked: argparse.Namespace) -> list[Any]:
    """The answers of one side to the rows' prompts."""
    if name.startswith(COLUMN):
        column = name.removeprefix(COLUMN)
        if column not in rows[0]:
            raise ValueError(f"the data set has no column {column!r} of answers; it has {', '.join(rows[0])}")
        return [row[column] for row in rows]
    if _is_file(name):
        return _of_file(name, rows, asked.prompt_column)
    from ..judges.answers import write_answers

    return write_answers(
        name,
        [row["prompt"] for row in rows],
        max_new_tokens=asked.max_new_tokens,
        temperature=asked.temperature,
        seed=asked.seed,
        rows=asked.batch_size,
        device=device(),
        progress=progress(f"{name} answered"),
    )


def rows_of(file: str) -> list[dict[str, Any]]:
    """The rows of a data file."""
    from .sources import load_splits

    return list(load_splits(file, None, ("train", "train"), False)["train"])


def _of_file(name: str, rows: list[dict[str, Any]], column: str) -> list[Any]:
    found = rows_of(name)[: len(rows)]
    if len(found) < len(rows) or "completion" not in found[0]:
        raise ValueError(
            f"{name} has {len(found)} rows with the columns {', '.join(found[0])}; expected `completion` for {len(rows)} prompts"
        )
    for number, (own, row) in enumerate(zip(found, rows, strict=True), 1):
        if own.get(column, row["prompt"]) != row["prompt"]:
            raise ValueError(
                f"row {number} of {name} answers another prompt; both sides must answer the same, in one order"
            )
    return [row["completion"] for row in found]


def writes(name: str) -> bool:
    """Whether `name` is a model, which has to write its answers."""
    return not (name.startswith(COLUMN) or _is_file(name))


def check_model(name: str) -> None:
    """Raises ValueError where there is no model of that name."""
    from ..models.load import read_config

    if not (Path(name).expanduser() / "adapter_config.json").is_file():
        read_config(name)


def _is_file(name: str) -> bool:
    return not name.startswith(COLUMN) and Path(name).expanduser().is_file()


def device() -> Any:
    """The accelerator, where there is one."""
    import torch

    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None


def progress(what: str) -> Callable[[int, int], None]:
    """Progress: one line that is written over on a terminal, a line at each tenth elsewhere."""
    terminal, tenths = sys.stderr.isatty(), [0]

    def say(done: int, whole: int) -> None:
        if terminal:
            print(
                f"\r{what} {done} of {whole}", end="\n" if done == whole else "", file=sys.stderr, flush=True
            )
        elif done * 10 // whole > tenths[-1]:
            tenths.append(done * 10 // whole)
            print(f"{what} {done} of {whole}", file=sys.stderr, flush=True)

    return say
