"""`python -m benchmarks [--repeats N]`: our paths beside plain ones, one line per case; a ratio below 1 is in our favour.

`python -m benchmarks peers [CASE…]`: whole trainers beside those of peers (see `peers --help`).
"""

from __future__ import annotations

import argparse
import sys

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


def main() -> None:
    """The paths, or with `peers` in front, the peers."""
    if sys.argv[1:2] == ["peers"]:
        from .peers import drive

        drive.main(sys.argv[2:])
    elif sys.argv[1:2] == ["table"]:
        from .peers import page

        page.main(sys.argv[2:])
    else:
        paths()


if __name__ == "__main__":
    main()
