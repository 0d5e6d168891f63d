"""`python -m examples.study --seeds 0 1 2 --out DIR`: the whole study, a folder per seed, and its table in DIR/table.md.

Begun again with the same words, it goes on after the last stage that finished.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def check_size(out: Path, numbers: dict[str, object]) -> None:
    """Raises ValueError where `out` holds a study of another size."""
    kept = out / "size.json"
    if kept.is_file():
        before = json.loads(kept.read_text())
        other = {name: before.get(name) for name in numbers if before.get(name) != numbers[name]}
        if other:
            raise ValueError(f"{out} holds a study with {other}; choose another --out, or remove it")
    out.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(numbers, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Run the seeds one after the other and print the table."""
    parser = argparse.ArgumentParser(prog="python -m examples.study", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="One run of everything each.")
    parser.add_argument("--out", type=Path, default=Path("study"), help="Where models, runs and tables go.")
    parser.add_argument("--tiny", action="store_true", help="Seconds instead of minutes: shows that it runs.")
    asked = parser.parse_args(arguments)

    import torch
    from transformers.utils import logging

    from .chain import run_seed
    from .sizes import FULL, TINY
    from .table import write_tables

    torch.set_num_threads(1)  # matrices this small only wait for a second one
    logging.disable_progress_bar()
    size = TINY if asked.tiny else FULL
    check_size(asked.out, asdict(size))
    homes = [asked.out / f"seed-{seed}" for seed in asked.seeds]
    for home, seed in zip(homes, asked.seeds, strict=True):
        run_seed(home, size, seed)
    print(write_tables(asked.out, homes))


if __name__ == "__main__":
    main()
