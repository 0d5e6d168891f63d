"""`python -m benchmarks [--repeats N]`: prints one line per case; a ratio below 1 is in our favour."""

from __future__ import annotations

import argparse

import torch

from . import rollout, scoring
from .measure import compare


def main() -> None:
    """Measure every case on one thread."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--repeats", type=int, default=7, help="Alternating pairs per case; the median is shown."
    )
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print(f"{'case':<22}{'plain s':>9}{'ours s':>9}{'ratio':>8}{'plain MiB':>11}{'ours MiB':>10}")
    for case in (*scoring.cases(), *rollout.cases()):
        row = compare(case, repeats)
        seconds = f"{row.plain_seconds:>9.3f}{row.our_seconds:>9.3f}{row.ratio:>8.2f}"
        print(f"{row.name:<22}{seconds}{row.plain_memory:>11.0f}{row.our_memory:>10.0f}")


if __name__ == "__main__":
    main()
