"""`trellis migrate`: scripts, notebooks, recipes and command lines written for TRL, rewritten for this library."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..migrate import Migrated

EPILOG = """\
PATH ends in .py, .ipynb, .yaml, .yml or .sh, or is a folder of such files. Without --write or --out nothing is changed: the
changes are printed as a diff, then each with its line, and why. What cannot be rewritten faithfully is left, with what to write.
Exit status: 0 everything is said and done, 1 some lines need a hand, 2 a file could not be read.
"""


def build_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        prog="trellis migrate",
        description="Rewrites what was written for TRL (0.4 to 0.29): imports, renamed and moved arguments, recipes, command "
        "lines, and hand-written PPO loops. The code is read, not run.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("paths", metavar="PATH", nargs="+", help="files or folders")
    add(
        "--write",
        action="store_true",
        help="change the files in place; each one's first version stays beside it as PATH.orig",
    )
    add("--out", metavar="FILE", help="write the result of one PATH there instead")
    add("--method", metavar="VERB", help="which trainer a recipe is for (default: by its names)")
    add("--quiet", action="store_true", help="no diff, only the notes")
    return parser


def main(argv: Sequence[str]) -> int:
    """Migrate, print, and write what was asked for."""
    parser = build_parser()
    asked = parser.parse_args(argv)
    if asked.out and (asked.write or len(asked.paths) != 1 or Path(asked.paths[0]).is_dir()):
        parser.error("--out takes the result of one file, and no --write beside it")
    from ..migrate import diff
    from ..migrate.plain import VERBS

    if asked.method and asked.method not in VERBS:
        parser.error(f"--method {asked.method}: expected one of {', '.join(VERBS)}")
    found, failed = _read(asked)
    for one in found:
        if not asked.quiet:
            print(diff(one), end="")
        for note in one.notes:
            print(f"{one.path}:{note.line}: {'BY HAND: ' if note.hand else ''}{note.text()}")
        _write(one, asked)
    _summary(found, asked)
    return 2 if failed else int(any(one.by_hand for one in found))


def _read(asked: argparse.Namespace) -> tuple[list[Migrated], int]:
    """Each file migrated, and how many could not be read."""
    from ..migrate import CannotRead, files_of, migrate_file

    found, failed = [], 0
    for path in map(Path, asked.paths):
        try:
            files = list(files_of(path))
        except CannotRead as error:
            failed += _cannot(error)
            continue
        for file in files:
            try:
                found.append(migrate_file(file, asked.method, asked=path.is_file()))
            except CannotRead as error:
                failed += _cannot(error)
    return found, failed


def _cannot(error: Exception) -> int:
    print(f"trellis migrate: error: {error}", file=sys.stderr)
    return 1


def _write(one: Migrated, asked: argparse.Namespace) -> None:
    """What was asked for; line ends stay as they were."""
    if asked.out:
        Path(asked.out).write_text(one.after, encoding="utf-8", newline="")
    elif asked.write and one.after != one.before:
        kept = Path(one.path + ".orig")
        if not kept.exists():
            kept.write_text(one.before, encoding="utf-8", newline="")
        Path(one.path).write_text(one.after, encoding="utf-8", newline="")


def _summary(found: list[Migrated], asked: argparse.Namespace) -> None:
    changed = [one for one in found if one.after != one.before]
    hands = sum(len(one.by_hand) for one in found)
    done = sum(len(one.notes) for one in found) - hands
    print(f"{len(found)} read, {len(changed)} changed; {done} changes, {hands} left to you")
    if changed and not (asked.write or asked.out):
        print(f"next: trellis migrate {' '.join(asked.paths)} --write")
