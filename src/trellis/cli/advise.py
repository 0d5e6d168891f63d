"""`trellis advise`: which of the nine methods suits a data set, why, and a recipe for this machine."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from itertools import islice
from typing import Any

ROWS_READ = 2000
"""Rows of which lengths and labels are taken."""

EPILOG = """\
DATA is what --dataset_name takes: a file, a directory, a name on the hub, or one of the data sets that come with the package
(demo:texts, demo:thumbs, demo:pairs, demo:prompts). R scores answers: the name of a ready reward (accuracy …), a function as
FILE.py:NAME, or the directory of a reward model.
Order of use: trellis advise, trellis check, then trellis METHOD --config recipe.yaml.
"""


def build_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        prog="trellis advise",
        description="Says which method suits a data set and why, and writes a recipe for this machine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("data", metavar="DATA", help="the data")
    add("--model", help="the model to train: a directory or a name on the hub")
    add("--reward", metavar="R", help="what scores answers, where something does")
    add(
        "--online",
        action="store_true",
        help="learn from the model's own answers (pairs: a reward model first)",
    )
    add("--out", metavar="RECIPE", help="write the recipe here (a name that ends in .yaml)")
    return parser


def main(argv: Sequence[str]) -> int:
    """Print the advice and write the recipe; 2 where nothing can be advised."""
    parser = build_parser()
    asked = parser.parse_args(argv)
    from ..plan.advice import advise

    try:
        if asked.out and not asked.out.endswith((".yaml", ".yml")):
            raise ValueError(f"--out {asked.out}: expected a name that ends in .yaml")
        facts, has_test = gather(asked)
        choice = advise(facts)
        methods = " then ".join(_title(method) for method in choice.methods)
        print(f"trellis advise {asked.data}: {methods}\n\nwhy")
        print(*(f"  - {line}" for line in choice.why(facts)), sep="\n")
        print("what would change the answer")
        print(*(f"  - {line}" for line in choice.otherwise), sep="\n")
        if asked.out:
            _write(asked, choice.methods, facts, has_test)
    except (ValueError, TypeError, ImportError, OSError) as error:
        print(f"trellis advise: error: {error}", file=sys.stderr)
        return 2
    print("\norder of use: advise → check → estimate → train → report")
    print("next: " + _next(asked, choice.methods))
    return 0


def _title(method: str) -> str:
    return "a reward model" if method == "reward" else method.upper()


def _next(asked: argparse.Namespace, methods: tuple[str, ...]) -> str:
    model = "" if asked.model else " --model MODEL"
    if asked.out:
        which = f" --method {methods[0]}" if len(methods) > 1 else ""
        return f"trellis check {shlex.quote(asked.out)}{which}{model}"
    words = [f"--model {shlex.quote(asked.model)}" if asked.model else "--model MODEL"]
    words += [f"--reward {shlex.quote(asked.reward)}"] if asked.reward else []
    words += ["--online"] if asked.online else []
    return f"trellis advise {shlex.quote(asked.data)} {' '.join(words)} --out recipe.yaml"


def gather(asked: argparse.Namespace) -> tuple[Any, bool]:
    """The facts that the advice is made of, and whether there is a test split."""
    from ..plan.advice import Facts
    from ..plan.kinds import LEARN_FROM, kind_of
    from ..plan.machine import model_facts, this_machine
    from .sources import load_splits

    splits = load_splits(asked.data, None, ("train", "test"), False)
    data = splits["train"]
    rows = [dict(row) for row in islice(iter(data), ROWS_READ)]
    columns = tuple(data.column_names)
    kind = kind_of(columns)
    reward = _kind_of_reward(asked.reward)
    has_prompt = _has_prompt(columns)
    method = "grpo" if reward and has_prompt else LEARN_FROM[kind][0]
    labels = [bool(label) for label in data["label"]] if kind == "thumbs" else []
    facts = Facts(
        kind=kind,
        rows=len(data),
        columns=columns,
        machine=this_machine(),
        model=model_facts(asked.model) if asked.model else None,
        reward=reward,
        online=asked.online,
        liked=(sum(labels), len(labels) - sum(labels)),
        has_prompt=has_prompt,
        lengths=_lengths(rows, method, asked.model),
    )
    return facts, "test" in splits


def _has_prompt(columns: Sequence[str]) -> bool:
    from ..data.formats import prompt_schema

    try:
        schema = prompt_schema(columns)
    except ValueError:
        return False
    return "text" not in schema.columns.values() and "messages" not in schema.columns.values()


def _kind_of_reward(spec: str | None) -> str:
    """ "function", "model", or "" where none is given. Raises ValueError for what can be neither."""
    from ..rewards.names import named
    from .online import loaded

    if spec is None:
        return ""
    found = loaded([spec])[0]
    found = named(found) if isinstance(found, str) else found
    if isinstance(found, str) and (found.startswith((".", "/", "~")) or found.count("/") > 1):
        if not os.path.isdir(os.path.expanduser(found)):
            raise ValueError(
                f"--reward {spec}: no such directory; expected a reward model, FILE.py:NAME, or a ready reward"
            )
    return "model" if isinstance(found, str) else "function"


def _lengths(rows: list[dict[str, Any]], method: str, model: str | None) -> dict[str, int]:
    """{part: a limit that 99 % of the rows keep}, read as the method would without limits."""
    from ..plan.check import check_rows
    from ..plan.lengths import wanted_length
    from ..plan.reading import tokenizer_for, without_limits
    from .check import stand_in
    from .settings import settings

    args = without_limits(settings(method, [], complete=False).args)
    tokenizer = tokenizer_for(method, None if model else stand_in(rows), model, args)
    check = check_rows(rows, method, args, tokenizer, show=0)
    if check.subject.reading.fault:
        raise ValueError(f"{check.subject.reading.fault} (look closer with: trellis check DATA)")
    return {part: wanted_length(counts) for part, counts in check.lengths().items()}


def _write(asked: argparse.Namespace, methods: tuple[str, ...], facts: Any, has_test: bool) -> None:
    from ..plan.recipe import Wanted, as_yaml, lines_of

    data = os.path.relpath(asked.data) if os.path.exists(asked.data) else asked.data
    parts = {}
    for method in methods:
        scored = method in ("ppo", "grpo", "rloo")
        learned = "my-reward" if len(methods) > 1 else asked.reward if facts.reward == "model" else None
        wanted = Wanted(
            method,
            data,
            has_test,
            asked.model,
            reward=asked.reward if scored and facts.reward == "function" else None,
            reward_model=learned if scored else None,
        )
        parts[method] = lines_of(wanted, facts)
    commands = " then ".join(f"trellis {method} --config {asked.out}" for method in methods)
    head = [commands, f"for {facts.machine}; written by trellis advise"]
    with open(asked.out, "w", encoding="utf-8") as file:
        file.write(as_yaml(parts, head))
    print(f"recipe: {asked.out}")
