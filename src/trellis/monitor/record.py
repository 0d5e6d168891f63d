"""run.json: what a run was started with and what came of it, so that it can be run again and compared."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from ..checkpoint import redacted, versions
from ..models.sharded import one_by_one, sharding_of
from .profile import peak_mib

RECORD = "run.json"
FORMAT = 1
ROWS = 1024
"""So many rows of a data set are hashed, evenly spread over it."""


class RunRecord(TrainerCallback):
    """Writes `output_dir/run.json` when a training begins, and its result when it ends (on the first rank).

    `command`: the words after `trellis`, with the recipe and the folder they were read in, where the run came from the command
    line; without them (None) a run can be compared, but not run again.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.command: dict[str, Any] | None = None
        self.record: dict[str, Any] = {}
        self._began = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        before = read_record(args.output_dir) if state.global_step else {}
        self.record = before or {
            "format": FORMAT,
            "command": redacted(self.command),
            "script": None if self.command else redacted(sys.argv[:1]),
            "trainer": type(self.trainer).__name__,
            "config": redacted(args),
            "versions": versions(),
            "machine": {
                "device": str(args.device),
                "threads": torch.get_num_threads(),
                "processes": args.world_size,
            },
            "data": fingerprint(self.trainer.train_dataset),
            "data_reports": reports_of(self.trainer),
            "resumed_at": [],
        }
        self._began = time.monotonic()
        if state.global_step:
            self.record["resumed_at"] = [*self.record["resumed_at"], state.global_step]
        self.record["result"] = None
        write_record(args.output_dir, self.record)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        if not state.is_world_process_zero and not sharding_of(model):
            return
        weights = weights_hash(model)
        if not state.is_world_process_zero:
            return
        self.record["result"] = {"steps": state.global_step, "weights": weights}
        peak = peak_mib(args.device)
        seconds = round(time.monotonic() - self._began, 3)
        self.record["cost"] = {
            "seconds": seconds,
            "peak_memory_mib": None if math.isnan(peak) else round(peak, 1),
        }
        write_record(args.output_dir, self.record)


def write_record(folder: str | os.PathLike[str], record: dict[str, Any]) -> None:
    """Write `run.json` into a directory, whole or not at all."""
    path = Path(folder) / RECORD
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".json.part")
    aside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)


def read_record(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The record in a directory; empty where there is none. Raises ValueError where it is none of ours."""
    path = Path(folder) / RECORD
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error})") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"{path} is no record that this version reads (expected format {FORMAT})")
    return record


def reports_of(trainer: Any) -> list[str]:
    """What became of each data set while it was prepared, in words."""
    found = [getattr(trainer, "report", None), *getattr(trainer, "eval_reports", {}).values()]
    return [
        str(report) for report in (*found, *getattr(trainer, "reports", {}).values()) if report is not None
    ]


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of the trained weights: names, shapes, types and bytes, in the order of the names."""
    found = hashlib.sha256()
    for name, weight in one_by_one(sorted((n, p) for n, p in model.named_parameters() if p.requires_grad)):
        found.update(f"{name} {tuple(weight.shape)} {weight.dtype}\n".encode())
        found.update(_bytes(weight.detach()))
    return found.hexdigest()


def _bytes(x: Tensor) -> memoryview:
    return memoryview(x.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def fingerprint(data: Any) -> dict[str, Any]:
    """Rows and SHA-256 of a prepared data set, or of `ROWS` rows spread over a large one; of a stream, that it is one."""
    if not hasattr(data, "__len__"):
        return {"rows": None, "sha256": None, "hashed": 0}
    count = len(data)
    places = range(count) if count <= ROWS else [i * count // ROWS for i in range(ROWS)]
    return {
        "rows": count,
        "sha256": _hash_of(data[i] for i in places),
        "hashed": len(places),
    }


def _hash_of(rows: Iterable[Any]) -> str:
    found = hashlib.sha256()
    for row in rows:
        found.update(json.dumps(row, sort_keys=True, default=str).encode())
    return found.hexdigest()
