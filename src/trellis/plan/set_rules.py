"""Rules about what rows are together: their labels, columns and lengths, and the rows held out."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from ..losses.unpaired import recommended_weights
from ..rewards import RewardError, RewardSet
from .findings import Finding, Subject, finding, plain, rule
from .reading import read
from .row_rules import identity

READ_BESIDE = {
    "language": ("tools", "chat_template_kwargs", "labels", "loss_mask", "assistant_masks", "completion_mask")
    + ("attention_mask", "prompt_len", "seq_lengths"),
    "pairs": ("tools", "chat_template_kwargs", "margin"),
    "unpaired": ("tools", "chat_template_kwargs", "label"),
}
ENOUGH = 30
"""Rows from which on a share says something."""

SKEWED = 0.8


@rule
def unreadable_test(subject: Subject) -> Iterator[Finding]:
    """Held-out rows at which evaluation would stop."""
    if not subject.test:
        return
    held = read(subject.test, subject.method, subject.args, subject.tokenizer, "eval_dataset")
    said = held.fault or next((f"row {number}: {why}" for number, why in held.broken), "")
    if said:
        yield Finding(
            "error", f"the test split cannot be read: {said}", "correct it, or write --eval_strategy no"
        )


@rule
def reward_columns(subject: Subject) -> Iterator[Finding]:
    """Columns that a reward function needs."""
    columns = [name for name in (subject.rows[0] if subject.rows else {}) if name != "prompt"]
    try:
        if subject.functions:
            RewardSet(subject.functions).check(columns)
    except RewardError as error:
        yield Finding("error", str(error), "add the column, or choose another reward")


@rule
def contradictions(subject: Subject) -> Iterator[Finding]:
    """The same comparison both ways, or one answer liked and not liked."""
    said: dict[str, set[Any]] = defaultdict(set)
    rows: dict[str, list[int]] = defaultdict(list)
    for i, (row, parts) in enumerate(zip(subject.rows, subject.texts, strict=True)):
        if {"chosen", "rejected"} <= set(parts):
            sides = [plain(parts["chosen"]), plain(parts["rejected"])]
            key, verdict = json.dumps([plain(parts.get("prompt")), *sorted(sides)]), sides[0] < sides[1]
        elif "label" in row:
            key, verdict = (
                json.dumps([plain(parts.get(p)) for p in ("prompt", "completion")]),
                bool(row["label"]),
            )
        else:
            continue
        said[key].add(verdict)
        rows[key].append(i)
    numbers = [i for key, verdicts in said.items() if len(verdicts) > 1 for i in rows[key]]
    yield from finding(
        "warning",
        numbers,
        "says the opposite of another row about the same answers",
        "keep the judgement that you trust",
    )


@rule
def leaks(subject: Subject) -> Iterator[Finding]:
    """Training rows that are held out as well."""
    held = {identity(subject, row) for row in subject.test}
    numbers = [i for i, row in enumerate(subject.rows) if identity(subject, row) in held] if held else []
    yield from finding(
        "warning",
        numbers,
        "is in the test split too, so what is measured there is memory",
        "leave them out of the training rows",
        "left out",
    )


@rule
def leaking_prompts(subject: Subject) -> Iterator[Finding]:
    """Training prompts that are held out with another answer."""
    column = subject.columns.get("prompt")
    if not subject.test or column is None or subject.family == "prompts":
        return
    held = {plain(row.get(column)) for row in subject.test} - {""}
    same = {identity(subject, row) for row in subject.test}
    numbers = [
        i
        for i, row in enumerate(subject.rows)
        if plain(row.get(column)) in held and identity(subject, row) not in same
    ]
    yield from finding(
        "note", numbers, "asks what the test split asks too", "split by prompt to measure what is new"
    )


@rule
def labels(subject: Subject) -> Iterator[Finding]:
    """Whether liked and disliked answers balance."""
    if subject.family != "unpaired":
        return
    found = [bool(row["label"]) for row in subject.reading.prepared]
    liked, disliked = sum(found), len(found) - sum(found)
    if not found:
        return
    if not (liked and disliked):
        yield Finding(
            "error",
            f"all {len(found)} labels are {bool(liked)}; KTO learns from the contrast of liked and disliked answers",
            f"add rows with label {not liked}",
        )
        return
    args = subject.args
    ranges = recommended_weights(liked, disliked, args.desirable_weight, args.undesirable_weight)
    if ranges is not None:
        (a, b), (c, d) = ranges
        yield Finding(
            "warning",
            f"{liked} answers are liked and {disliked} are not; with weights {args.desirable_weight:g} and "
            f"{args.undesirable_weight:g} they do not balance",
            f"write --desirable_weight {(a + b) / 2:.2f} ({a:.2f} to {b:.2f}), or --undesirable_weight {(c + d) / 2:.2f} "
            f"({c:.2f} to {d:.2f})",
        )


@rule
def no_prompt(subject: Subject) -> Iterator[Finding]:
    """Pairs of answers to nothing."""
    rows = subject.reading.prepared
    bare = [
        i for i, row in zip(subject.reading.origin, rows, strict=True) if len(row.get("prompt_ids", "x")) < 2
    ]
    if subject.family == "pairs" and len(bare) == len(rows) and rows:
        yield Finding(
            "note",
            "no row has a prompt: there is no such column, and the two answers do not begin alike",
            "add a column `prompt`, unless the texts are meant to stand alone",
        )


@rule
def longer_wins(subject: Subject) -> Iterator[Finding]:
    """Whether length alone says which answer was preferred."""
    if subject.family != "pairs":
        return
    rows = subject.reading.prepared
    difference = Counter(_sign(len(row["chosen_ids"]) - len(row["rejected_ids"])) for row in rows)
    for sign, word in ((1, "longer"), (-1, "shorter")):
        if len(rows) >= ENOUGH and difference[sign] > SKEWED * len(rows):
            yield Finding(
                "note",
                f"the chosen answer is the {word} one in {difference[sign] / len(rows):.0%} of pairs; length is easy to learn",
                "watch the length of answers while training, or balance the pairs",
            )


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


@rule
def unread_columns(subject: Subject) -> Iterator[Finding]:
    """Columns that the method does not look at."""
    if subject.family == "prompts" or subject.reading.schema is None:
        return
    used = {*subject.columns.values(), *READ_BESIDE[subject.family]}
    left = [name for name in (subject.rows[0] if subject.rows else {}) if name not in used]
    if left:
        yield Finding(
            "note",
            f"columns that {subject.method} does not read: {', '.join(map(repr, left))}",
            "nothing to do, unless something in them belongs to the text",
        )
