"""metrics.jsonl: everything a run logs, one JSON object per line, in the output directory."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

logger = logging.getLogger(__name__)
FILE = "metrics.jsonl"


def _plain(value: Any) -> Any:
    # JSON has no NaN or infinity; a reader should still see that one was logged.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class History(TrainerCallback):
    """Appends each log to `output_dir/metrics.jsonl`; a resumed run continues the file at its step, a new run starts anew."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        path = Path(args.output_dir) / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [r for r in read_history(path) if r["step"] <= state.global_step] if state.global_step else []
        path.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        record = {"step": state.global_step, **{k: _plain(v) for k, v in logs.items()}}
        path = Path(args.output_dir) / FILE
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:  # a full disk: a line of the log is not worth the run
            logger.warning("step %d is not in %s: %s", state.global_step, path, error)


def read_history(path: str | Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl file or of a run's directory; an unfinished last line (a killed run) is left out."""
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records
