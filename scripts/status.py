"""Writes docs/status.md, which trainer's which feature is held by how many tests: `python -m scripts.status`.

Nothing in the table is claimed by hand. A feature is a list of places in the tests; the tests there are collected by pytest, and
each counts for the trainers that its id names, or, where one run holds several, for those that stand beside the place.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from .features import ELSEWHERE, FEATURES, TRAINERS, Feature, Place

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "status.md"
TITLES = ("SFT", "Reward", "DPO", "KTO", "ORPO", "CPO", "PPO", "RLOO", "GRPO")
NAMED = re.compile(rf"(?<![a-z])({'|'.join(TRAINERS)})(?=config|trainer|[^a-z]|$)")


def place_of(place: Place) -> tuple[str, tuple[str, ...] | None]:
    return (place, None) if isinstance(place, str) else place


def files() -> list[str]:
    """The test files that the features name, those of a pattern included."""
    patterns = {place_of(place)[0].partition("::")[0] for feature in FEATURES for place in feature.places}
    patterns |= {place for _, place in ELSEWHERE if place}
    found = {path for pattern in patterns for path in ROOT.glob(pattern) if path.name.startswith("test_")}
    return sorted(str(path.relative_to(ROOT)) for path in found)


def collected(said: str) -> list[str]:
    """The ids in what `pytest --collect-only -q` printed."""
    return [line for line in said.splitlines() if line.startswith("tests/") and "::" in line]


def trainers_in(test: str) -> set[str]:
    """The trainers that stand in the brackets of an id."""
    return set(NAMED.findall(test.partition("[")[2].lower()))


def holders(feature: Feature, tests: Iterable[str]) -> dict[str, list[str]]:
    """{trainer: the ids of the tests that hold the feature for it}, each test once."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for pattern, who in map(place_of, feature.places):
        for test in tests:
            if fnmatchcase(test, pattern) or fnmatchcase(test.partition("[")[0], pattern):
                named = trainers_in(test)
                for trainer in named if who is None else (named & set(who) or who):
                    found[trainer][test] = None
    return {trainer: list(found[trainer]) for trainer in feature.of if found[trainer]}


def cells(feature: Feature, found: dict[str, list[str]]) -> list[str]:
    """A number, "–" where the feature is the trainer's and no test holds it, nothing where it is not."""
    return [(str(len(found[t])) if t in found else "–") if t in feature.of else "" for t in TRAINERS]


def written(tests: list[str]) -> str:
    """The page from the ids of the collected tests."""
    rows, places = [], []
    for feature in FEATURES:
        found = holders(feature, tests)
        rows.append(f"| {feature.name} | {' | '.join(cells(feature, found))} |")
        functions = {test.partition("[")[0] for held in found.values() for test in held}
        by_file: dict[str, int] = defaultdict(int)
        for function in functions:
            by_file[function.partition("::")[0]] += 1
        named = ", ".join(f"`{file}` ({count})" for file, count in sorted(by_file.items()))
        places.append(f"| {feature.name} | {named or 'not tested'} |")
    away = []
    for name, place in ELSEWHERE:
        count = sum(fnmatchcase(test, place) for test in tests) if place else 0
        away.append(
            f"| {name} | {f'{count} tests in `{place}`, which `make gpu` runs where there is one' if count else 'not tested'} |"
        )
    return PAGE_TEXT.format(
        head=" | ".join(TITLES),
        rule=" | ".join(["--:"] * len(TITLES)),
        rows="\n".join(rows),
        away="\n".join(away),
        places="\n".join(places),
    )


PAGE_TEXT = """# Status

This page is written from the tests (`make snapshot`), and a test compares it with them. A number says how many tests hold a
feature for a trainer; "–": no test does; empty: the trainer has no such thing. One test may hold a feature for several trainers.

| Feature | {head} |
|---|{rule}|
{rows}

## Not tested by CI

| Feature | |
|---|---|
{away}

## Where

In brackets: how many test functions, each of which may run with many parameters.

| Feature | Tests |
|---|---|
{places}

What goes wrong and is survived has a page of its own, also written from its tests: [reliability](reliability.md#what-is-tested).
"""


def main() -> None:
    """Collect, and write the page."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *files()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    PAGE.write_text(written(collected(done.stdout)), encoding="utf-8")


if __name__ == "__main__":
    main()
