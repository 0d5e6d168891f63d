"""Rules about rows as they were written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .characters import CONTROL, INVISIBLE, LOST, repaired
from .findings import Finding, Subject, finding, plain, rule, strings

ANSWERS = ("completion", "chosen", "rejected")
NEEDED = {
    "language": ("text", "messages", "completion"),
    "pairs": ("chosen", "rejected"),
    "unpaired": ANSWERS,
    "prompts": ("prompt",),
}


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
