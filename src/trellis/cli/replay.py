"""`trellis replay RUN`: the run again, from its own record, and whether the same came of it."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ..checkpoint import REDACTED, redacted
from ..monitor import RunRecord, read_history, read_record

TIMES = re.compile(r"(_runtime|_per_second)$|^(time|speed|memory|profile)/|_seconds?$|_gb$|_mib$")
"""What a log says about the machine and not about the training."""
QUIET = ("--report_to", "none", "--push_to_hub", "false")
DROPPED = ("output_dir", "resume_from_checkpoint", "config", "report_to", "push_to_hub", "hub_token")
NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?|true|false|none|", re.IGNORECASE)
"""What can be no secret, whatever the flag is called."""


def main(argv: Sequence[str]) -> int:
    """0 where the second run equals the first, 1 where it differs, 2 where it cannot be told."""
    parser = argparse.ArgumentParser(
        prog="trellis replay",
        description="Runs a run again from the record in its directory (run.json), and compares log and weights. On a CPU equal "
        "means equal to the bit.",
    )
    parser.add_argument("run", help="the output directory of a run that was started with `trellis VERB`")
    parser.add_argument("--output", default=None, help="where the second run goes (default: RUN-replay)")
    parser.add_argument("--against", default=None, help="compare with this run; nothing is run")
    asked = parser.parse_args(argv)
    try:
        second = asked.against or asked.output or f"{str(asked.run).rstrip('/')}-replay"
        if asked.against is None:
            status = run_again(asked.run, second)
            if status:
                parser.error(f"the second run ended with status {status}; what it said is above")
        differences = compare(asked.run, second)
    except ValueError as error:
        parser.error(str(error))
    for line in differences:
        print(f"trellis: differs: {line}")
    print(f"trellis: {'equal' if not differences else 'different'}: {asked.run} and {second}")
    return int(bool(differences))


def run_again(run: str, output: str) -> int:
    """The status of the command in a run's record, run once more into `output`. Raises ValueError where the record lacks what
    that takes."""
    record = _record(run)
    command = record.get("command")
    if not command:
        raise ValueError(
            f"{run} was started by a script ({' '.join(record.get('script') or ['?'])}), not by `trellis VERB`: its record has "
            "the config and the fingerprint of the data, but not the model, the data and the reward functions. Run the script "
            f"again with another output_dir, then: trellis replay {run} --against OTHER"
        )
    if record["machine"]["processes"] > 1:
        raise ValueError(
            f"{run} ran in {record['machine']['processes']} processes; start its command again the same way with another "
            f"--output_dir, then: trellis replay {run} --against OTHER"
        )
    if Path(output).exists() and any(Path(output).iterdir()):
        raise ValueError(f"{output} is not empty; choose another directory with --output")
    Path(output).mkdir(parents=True, exist_ok=True)
    words = command_words(command, Path(output).resolve())
    environment = {**os.environ, "OMP_NUM_THREADS": str(record["machine"]["threads"])}
    return subprocess.run(
        [sys.executable, "-m", "trellis.cli", *words], cwd=command["folder"], env=environment
    ).returncode


def command_words(command: dict[str, Any], output: Path) -> list[str]:
    """The words after `trellis` for a second run into `output`, its recipe written there; what was a secret is left out."""
    verb, *words = command["words"]
    kept = [
        word
        for group in grouped(words)
        if name_of(group[0]) not in DROPPED and REDACTED not in " ".join(group)
        for word in group
    ]
    if command.get("recipe") is not None:
        (output / "recipe.yaml").write_text(
            yaml.safe_dump(_without_secrets(command["recipe"]), sort_keys=False), encoding="utf-8"
        )
        kept += ["--config", str(output / "recipe.yaml")]
    return [verb, *kept, "--output_dir", str(output), *QUIET]


def grouped(words: Sequence[str]) -> list[list[str]]:
    """Flags, each with its values."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("--") or not groups:
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


def name_of(flag: str) -> str:
    """The field that a flag sets."""
    return flag.split("=")[0].lstrip("-").replace("-", "_")


def _without_secrets(recipe: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in recipe.items() if v != REDACTED and k not in DROPPED}
    return {k: _without_secrets(v) if isinstance(v, dict) else v for k, v in kept.items()}


def note_command(trainer: Any, verb: str, argv: Sequence[str], recipe: dict[str, Any] | None) -> None:
    """Leave in the run's record what it is run again from; secrets stay out of it."""
    words = [word for group in grouped(argv) for word in _spoken(group)]
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, RunRecord):
            callback.command = {"words": [verb, *words], "recipe": recipe, "folder": str(Path.cwd())}


def _spoken(group: Sequence[str]) -> list[str]:
    """A flag and its values, those redacted that are no number under a secret's name."""
    flag, equals, value = group[0].partition("=")
    values = [w if NUMBER.fullmatch(w) else redacted(w, name_of(flag)) for w in group[1:]]
    own = value if NUMBER.fullmatch(value) else redacted(value, name_of(flag))
    return [f"{flag}{equals}{own}", *values]


def compare(first: str, second: str) -> list[str]:
    """What differs between two runs: data, the first entry of the log, weights; and, where anything does, the versions."""
    a, b = _record(first), _record(second)
    found = [_difference("data", a.get("data"), b.get("data"))]
    found.append(first_difference(read_history(first), read_history(second)))
    found.append(_difference("result", a.get("result"), b.get("result")))
    found = [line for line in found if line]
    if not a.get("result"):
        found.append(f"{first} did not finish, so its weights are not known")
    if found:
        found += [
            line for name in ("versions", "machine") if (line := _difference(name, a.get(name), b.get(name)))
        ]
    return found


def first_difference(a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]]) -> str:
    """The first entry in which two logs differ, times apart; "" where they are equal."""
    for one, other in zip(a, b, strict=False):
        names = [name for name in {**one, **other} if not TIMES.search(name)]
        changed = [name for name in names if one.get(name) != other.get(name)]
        if changed:
            name = changed[0]
            return f"log, step {one.get('step')}: {name} is {one.get(name)!r} and {other.get(name)!r}"
    return "" if len(a) == len(b) else f"log: {len(a)} and {len(b)} entries"


def _difference(name: str, a: Any, b: Any) -> str:
    if a == b:
        return ""
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return f"{name}: {a!r} and {b!r}"
    changed = [key for key in {**a, **b} if a.get(key) != b.get(key)]
    return f"{name}: " + ", ".join(f"{key} {a.get(key)!r} and {b.get(key)!r}" for key in changed)


def _record(run: str) -> dict[str, Any]:
    record = read_record(run)
    if not record:
        raise ValueError(f"{run} holds no run.json; expected the output directory of a training run")
    return record
