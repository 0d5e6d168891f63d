"""samples.parquet: a few completions of rollouts all over a run, in its output directory."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from .completions import write_table

logger = logging.getLogger(__name__)
NAME = "samples"
LIMIT = 2000
"""Rows that the file may have; beyond them every second log of a run is thinned out, the newest stays."""
Row = dict[str, Any]


class SampleFile(TrainerCallback):
    """At each log of a trainer that samples, a few completions of its last rollout join the file; a resumed run continues it."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.rows: list[Row] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero or getattr(self.trainer, "collector", None) is None:
            return
        found = read_samples(args.output_dir)
        self.rows = [row for row in found if row["step"] <= state.global_step] if state.global_step else []
        if found and not self.rows:  # of another run
            for path in _files(args.output_dir):
                path.unlink()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        shown = getattr(getattr(self.trainer, "collector", None), "shown", [])
        if not state.is_world_process_zero or not shown or "loss" not in (logs or {}):
            return
        self.rows = thinned([*self.rows, *({"step": state.global_step, **row} for row in shown)])
        try:
            write_table(self.rows, Path(args.output_dir) / NAME)
        except OSError as error:  # a full disk: samples are not worth the run
            logger.warning("step %d has no samples in the output directory: %s", state.global_step, error)


def thinned(rows: Sequence[Row]) -> list[Row]:
    """The rows, or those of every second step where they are too many."""
    if len(rows) <= LIMIT:
        return list(rows)
    steps = list(dict.fromkeys(row["step"] for row in rows))
    kept = set(steps[::-2])
    return [row for row in rows if row["step"] in kept]


def _files(folder: str | Path) -> list[Path]:
    paths = (Path(folder, f"{NAME}{ending}") for ending in (".parquet", ".jsonl"))
    return [path for path in paths if path.exists()]


def read_samples(folder: str | Path) -> list[Row]:
    """The rows of a run's samples.parquet (or .jsonl), in the order of their steps; none where there is no such file."""
    for path in _files(folder):
        if path.suffix == ".parquet":
            from pyarrow.parquet import ParquetFile

            rows: list[Row] = ParquetFile(path).read().to_pylist()
            return rows
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return []
