"""Rules about rows as they were written."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from ..losses.unpaired import recommended_weights
from ..rewards import RewardError, RewardSet
from .characters import CONTROL, INVISIBLE, LOST, repaired
from .findings import Finding, Subject, finding, plain, rule, strings

READ_BESIDE = {
    "language": ("tools", "chat_template_kwargs", "labels", "loss_mask", "assistant_masks", "completion_mask")
    + ("attention_mask", "prompt_len", "seq_lengths"),
    "pairs": ("tools", "chat_template_kwargs", "margin"),
    "unpaired": ("tools", "chat_template_kwargs", "label"),
}
ANSWERS = ("completion", "chosen", "rejected")
NEEDED = {
    "language": ("text", "messages", "completion"),
    "pairs": ("chosen", "rejected"),
    "unpaired": ANSWERS,
    "prompts": ("prompt",),
}
ENOUGH = 30
"""Rows from which on a share says something."""

SKEWED = 0.8


@rule
def unreadable(subject: Subject) -> Iterator[Finding]:
    """Rows at which training would stop."""
    reading = subject.reading
    if reading.fault:
        yield Finding("error", reading.fault, "change the data or the option named above")
    if reading.broken:
        number, why = reading.broken[0]
        yield from finding(
            "error",
            [number for number, _ in reading.broken],
            f"cannot be read; training would stop there. Row {number}: {why}",
            "correct them, or leave them out",
            "left out",
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
def empty(subject: Subject) -> Iterator[Finding]:
    """Rows in which a part that is needed holds nothing."""
    numbers = [i for i, parts in enumerate(subject.texts) if lacks(parts, subject.family)]
    yield from finding("warning", numbers, "has an empty text or answer", "leave them out", "left out")


def lacks(parts: Mapping[str, Any], family: str) -> bool:
    """Whether a part that is needed is there, but blank. (Before an answer, an empty prompt is a prompt too.)"""
    return any(part in NEEDED[family] and _blank(value) for part, value in parts.items())


def _blank(value: Any) -> bool:
    """Whether a text, or the last word of a conversation, says nothing."""
    last = value[-1] if isinstance(value, list) else value
    return not plain(last).strip() and not (isinstance(last, Mapping) and last.get("tool_calls"))


def identity(subject: Subject, row: Mapping[str, Any]) -> str:
    """What two rows have in common when they teach the same. Rewards read every column of a prompt's row."""
    wanted = list(row) if subject.family == "prompts" else list(subject.columns.values())
    read = {name: row.get(name) for name in (*wanted, "tools", "label") if row.get(name) is not None}
    return json.dumps(read, sort_keys=True, default=str)


@rule
def repeated(subject: Subject) -> Iterator[Finding]:
    """Rows that were there before."""
    seen: set[str] = set()
    numbers = [i for i, row in enumerate(subject.rows) if _known(identity(subject, row), seen)]
    yield from finding(
        "warning", numbers, "repeats an earlier row", "leave them out, or repeat all rows alike", "left out"
    )


def _known(key: str, seen: set[str]) -> bool:
    known = key in seen
    seen.add(key)
    return known


@rule
def equal_sides(subject: Subject) -> Iterator[Finding]:
    """Pairs that prefer nothing."""
    numbers = [i for i, t in enumerate(subject.texts) if t.get("chosen") and t["chosen"] == t.get("rejected")]
    numbers += subject.reading.numbers("chosen and rejected are the same")
    yield from finding(
        "warning",
        numbers,
        "has the same text as chosen and rejected; training leaves them out",
        "leave them out, or write the other answer",
        "left out",
    )


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
def prompts_that_differ(subject: Subject) -> Iterator[Finding]:
    """Pairs whose answers are not answers to one prompt."""
    if subject.family not in ("pairs", "unpaired"):
        return
    numbers = [i for i, parts in enumerate(subject.texts) if differ(parts)]
    yield from finding(
        "error",
        numbers,
        "is a pair of conversations that do not begin with the same prompt",
        "give both answers the prompt they were written for, best in a column `prompt`",
        "left out",
    )


def differ(parts: Mapping[str, Any]) -> bool:
    """Whether two conversations do not begin with one prompt."""
    sides = [parts.get(side) for side in ("chosen", "rejected")]
    if not all(isinstance(side, list) for side in sides):
        return False
    prompt, openings = parts.get("prompt"), [_opening(side) for side in sides]
    if not any(openings):
        return False
    asked = _opening(prompt) if isinstance(prompt, list) else ([plain(prompt)] if prompt else openings[0])
    return any(opening != asked for opening in openings if opening)


def _opening(messages: Any) -> list[str]:
    """The texts of a conversation before its first answer."""
    found = []
    for message in messages:
        if message.get("role", message.get("from")) in ("assistant", "gpt"):
            break
        found.append(plain(message))
    return found


@rule
def prompt_again(subject: Subject) -> Iterator[Finding]:
    """Answers that begin with their prompt, as when a whole text was put where the answer belongs."""
    numbers = [i for i, parts in enumerate(subject.texts) if repeats_prompt(parts)]
    yield from finding(
        "warning",
        numbers,
        "has an answer that begins with the prompt, so the model reads it twice",
        "take the prompt out of the answer",
        "taken out of the answer",
    )


def repeats_prompt(parts: Mapping[str, Any]) -> bool:
    """Whether every answer of a row begins with the whole prompt."""
    prompt = parts.get("prompt")
    answers = [parts[name] for name in ANSWERS if name in parts]
    return (
        isinstance(prompt, str)
        and len(prompt.split()) > 1
        and bool(answers)
        and all(isinstance(answer, str) and answer.startswith(prompt) for answer in answers)
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
def odd_characters(subject: Subject) -> Iterator[Finding]:
    """Characters that come from a wrong decoding or a copy from a page."""
    kinds = {
        "holds U+FFFD, which stands for a character that was lost": lambda text: LOST in text,
        "holds control characters": lambda text: bool(CONTROL.search(repaired(text))),
        "holds invisible characters (zero width, byte order mark)": lambda text: bool(INVISIBLE.search(text)),
        "holds UTF-8 that was read as Windows-1252 (Ã© for é)": lambda text: repaired(text) != text,
    }
    for (text, found), mends in zip(
        kinds.items(), ("left out", "taken out", "taken out", "read again"), strict=True
    ):
        numbers = [
            i for i, parts in enumerate(subject.texts) if any(map(found, strings(list(parts.values()))))
        ]
        advice = "read the source again with encoding='utf-8'" if mends != "taken out" else "take them out"
        yield from finding("warning", numbers, text, advice, mends)


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
