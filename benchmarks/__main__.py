"""`python -m benchmarks [--repeats N]`: our paths beside plain ones, one line per case; a ratio below 1 is in our favour.

`peers [CASE…]`: whole trainers beside those of peers. `table DIR`: the page of their results. `rollout`: samplers side by side.
`curves`: cost against length, group size, vocabulary and batch. `startup`: from nothing to the first step. `gpu`: on an
accelerator. `ahead`: rollouts sampled one ahead in another process. Each has its own --help.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

import torch


def paths() -> None:
    """Measure every path on one thread."""
    from . import rollout, scoring
    from .measure import compare, memory_of

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeats", type=int, default=7, help="Alternating pairs per case; the median is shown."
    )
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print(f"{'case':<22}{'plain s':>9}{'ours s':>9}{'ratio':>8}{'plain MiB':>11}{'ours MiB':>10}")
    cases = [*scoring.cases(), *rollout.cases()]
    memories = [memory_of(case) for case in cases]
    for case, memory in zip(cases, memories, strict=True):
        row = compare(case, repeats, memory)
        seconds = f"{row.plain_seconds:>9.3f}{row.our_seconds:>9.3f}{row.ratio:>8.2f}"
        print(f"{row.name:<22}{seconds}{row.plain_memory:>11.0f}{row.our_memory:>10.0f}")


def startup_run(arguments: list[str]) -> None:
    """What `startup` starts."""
    from . import startup

    startup.train(Path(arguments[0]))


OTHERS = {
    "peers": "peers.drive",
    "table": "peers.page",
    "rollout": "rollout",
    "curves": "curves",
    "startup": "startup",
    "gpu": "gpu",
    "ahead": "ahead",
}
"""Command → the module whose `main` it is."""


def main() -> None:
    """The command that is named first, or the paths."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name == "startup-run":
        startup_run(sys.argv[2:])
    elif name in OTHERS:
        import_module(f"benchmarks.{OTHERS[name]}").main(sys.argv[2:])
    else:
        paths()


if __name__ == "__main__":
    main()
