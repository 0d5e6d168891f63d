"""Trains every trainer a little, saves it, and prints the hash of its weights:
`python -m tests.faults.every_trainer FOLDER ORDER`.

ORDER is "forwards" or "backwards": which trainer comes first, and with it which modules are imported first.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

BACKWARDS = (
    "trellis.rollout",
    "trellis.losses.policy",
    "datasets",
    "peft",
    "trellis.cli.train",
    "trellis.data",
)


def main(folder: Path, order: str) -> None:
    if order == "backwards":
        for module in BACKWARDS:
            import_module(module)
    from . import bad_rows
    from .trainers import ROWS, build

    found = {}
    for name in reversed(ROWS) if order == "backwards" else ROWS:
        trainer = build(
            name,
            folder / name,
            bad_rows.good(ROWS[name][0]),
            fresh=True,
            save_strategy="steps",
            save_steps=1,
            learning_rate=1e-2,
            logging_steps=1,
            hub_token="hf_" + "FakeToken" * 4,
        )
        trainer.train()
        trainer.save_model()
        if hasattr(trainer, "create_model_card"):
            trainer.create_model_card()
        found[name] = json.loads((folder / name / "run.json").read_text())["result"]["weights"]
    print("HASHES", json.dumps(found, sort_keys=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
