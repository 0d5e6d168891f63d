"""Directories that look like runs, written in milliseconds."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

EVIL = '</script><script>document.title="evil"</script><img src=x onerror=alert(1)>'


def write_run(
    folder: Path,
    *,
    seed: int = 0,
    steps: int = 40,
    names: tuple[str, ...] = ("loss", "entropy"),
    **config: Any,
) -> Path:
    """A run of an SFT trainer whose curves fall, with noise of its own."""
    folder.mkdir(parents=True)
    draw = random.Random(seed)
    log = [
        {"step": step, **{name: math.exp(-step / steps) + draw.gauss(0, 0.05) for name in names}}
        for step in range(1, steps + 1)
    ]
    _lines(
        folder / "metrics.jsonl",
        [*log, {"step": steps, "train_runtime": 12.5, "train_steps_per_second": 3.2}],
    )
    record = {
        "format": 1,
        "command": {"words": ["sft", "--seed", str(seed)], "recipe": None, "folder": "."},
        "trainer": "SFTTrainer",
        "config": {"output_dir": str(folder), "seed": seed, "learning_rate": 2e-5, **config},
        "versions": {"torch": "2.13.0"},
        "machine": {"device": "cpu", "processes": 1},
        "data": {"rows": 17, "sha256": "ab" * 32},
        "data_reports": ["train: 20 rows, 17 kept, 0 cut, 3 dropped"],
        "resumed_at": [],
        "result": {"steps": steps, "weights": "cd" * 32},
        "cost": {"seconds": 12.5, "peak_memory_mib": 812.0},
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def write_samples(folder: Path, rows: list[dict[str, Any]]) -> None:
    """What the policy of a run wrote, as JSON lines."""
    (folder / "completions").mkdir()
    _lines(folder / "completions" / "completions_00001.jsonl", rows)


def write_health(folder: Path, *entries: dict[str, Any]) -> None:
    """What was said of a run's health."""
    _lines(folder / "health.jsonl", entries)


def _lines(path: Path, rows: Any) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
