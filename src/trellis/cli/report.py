"""`trellis report RUN [RUN …]`: runs read after they are done, or on their way, as one page."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

EPILOG = """\
RUN is the output directory of a training. Runs that differ in their seed only are drawn as one curve with a band.
The page is one file that loads nothing: it can be mailed, archived and read without a network.
"""


def build_parser() -> argparse.ArgumentParser:
    """The flags of the report."""
    parser = argparse.ArgumentParser(
        prog="trellis report",
        description="One page about one or several runs: curves with their meanings, samples over time, settings, health, cost.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="output directory of a run")
    parser.add_argument(
        "--out", metavar="FILE", default="report.html", help="the page (default: report.html)"
    )
    parser.add_argument("--png", metavar="DIR", help="also write each run's curves there, as PNG and SVG")
    parser.add_argument(
        "--no_estimate", action="store_true", help="leave out what was to be expected of memory and time"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Write the page and what else was asked for; 2 for what is no run."""
    asked = build_parser().parse_args(argv)
    from ..report import read_runs, write_page, write_pictures

    try:
        runs = read_runs(asked.runs)
        estimates = [] if asked.no_estimate else [estimated(run.record) for run in runs]
        write_page(runs, f"trellis report {', '.join(run.name for run in runs)}", asked.out, estimates)
        pictures = write_pictures(runs, asked.png) if asked.png else []
    except (ValueError, OSError) as error:
        print(f"trellis report: error: {error}", file=sys.stderr)
        return 2
    for path in (asked.out, *pictures):
        print(f"written: {path}")
    talks = [run.folder for run in runs if run.trainer != "RewardTrainer" and _holds_a_model(run.folder)]
    if talks:
        print(f"next: open {shlex.quote(asked.out)}, and trellis chat {shlex.quote(str(talks[0]))}")
    return 0


def estimated(record: dict[str, Any]) -> str:
    """What `trellis estimate` says of a recorded run on this machine; "" where its command, data or model cannot be had here."""
    command = record.get("command")
    if not command or not Path(command["folder"]).is_dir():
        return ""
    from ..plan.cost import in_words, product_rate, time_of
    from ..plan.estimate import Estimate
    from ..plan.machine import this_machine
    from .estimate import build_parser as of_estimates
    from .estimate import gather
    from .replay import command_words

    silence = (redirect_stderr(StringIO()), redirect_stdout(StringIO()))
    with TemporaryDirectory() as aside, chdir(command["folder"]), silence[0], silence[1]:
        try:
            asked, rest = of_estimates().parse_known_args(command_words(command, Path(aside)))
            planned = gather(asked, rest)
        except (ValueError, TypeError, ImportError, OSError, SystemExit):
            return ""
        machine = this_machine()
        found = Estimate(planned.job, machine, machine.memory, planned.world, planned.sharding)
        on, half = ("cpu" if machine.device == "the CPU" else "cuda"), planned.job.run.number < 4
        time = time_of(planned.job, lambda rows: product_rate(rows, half), world=planned.world, device=on)
        return (
            f"{found.memory.peak / 2**20:,.0f} MiB at most per process, roughly {in_words(time.total)} in all"
        )


def _holds_a_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))
