"""Rows without what a check found, as far as no judgement is needed for it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .characters import LOST, cleaned
from .findings import Subject, plain, strings, texts_of
from .row_rules import ANSWERS, differ, identity, lacks, repeats_prompt
from .token_rules import doubled_begins, doubled_ends

KEPT_MARKS = ("cut", "merged", "endless")


def mended(subject: Subject) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows to keep, some of them changed, and what was done, a line each."""
    done: Counter[str] = Counter()
    drop = _left_out_by_training(subject)
    doubled = {*doubled_ends(subject), *doubled_begins(subject)}
    held = {identity(subject, new) for row in subject.test for new in (row, _changed(row, subject, False))}
    seen: set[str] = set()
    kept = []
    for number, row in enumerate(subject.rows):
        new = _changed(row, subject, number in doubled)
        why = drop.get(number) or _useless(new, subject) or _known(identity(subject, new), held, seen)
        if why:
            done[f"left out: {why}"] += 1
            continue
        done["changed: characters, special tokens or a repeated prompt taken out of the text"] += new != row
        kept.append(new)
    return kept, [f"{count} × {what}" for what, count in done.items() if count]


def write_rows(rows: list[dict[str, Any]], path: str) -> None:
    """One JSON object per line. Raises ValueError where the file cannot be written or would not be read as lines of JSON."""
    target = Path(path)
    if target.suffix != ".jsonl":
        raise ValueError(f"--fix {path}: expected a name that ends in .jsonl")
    try:
        lines = (json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        target.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise ValueError(f"--fix {path}: {error}") from error


def _left_out_by_training(subject: Subject) -> dict[int, str]:
    """{number: reason} of the rows that training stops at or leaves out."""
    report = subject.reading.report
    numbers = {} if report is None else report.numbers
    reasons = {i: why for why, rows in numbers.items() if why not in KEPT_MARKS for i in rows}
    return reasons | {number: "cannot be read" for number, _ in subject.reading.broken}


def _useless(row: Mapping[str, Any], subject: Subject) -> str:
    parts = texts_of(row, subject.columns)
    if lacks(parts, subject.family):
        return "an empty text or answer"
    if "chosen" in parts and parts["chosen"] == parts.get("rejected"):
        return "chosen and rejected are the same"
    if differ(parts):
        return "answers to different prompts"
    return "a character that was lost" if any(LOST in text for text in strings(list(parts.values()))) else ""


def _known(key: str, held: set[str], seen: set[str]) -> str:
    if key in held:
        return "in the test split too"
    if key in seen:
        return "repeats an earlier row"
    seen.add(key)
    return ""


def _changed(row: Mapping[str, Any], subject: Subject, doubled: bool) -> dict[str, Any]:
    """A row with clean text and without its prompt in its answer; where special tokens are `doubled`, without those that the
    preparation writes."""
    tokenizer = subject.tokenizer
    new = dict(row)
    for column in subject.columns.values():
        new[column] = _every_text(new.get(column), cleaned)
        if doubled:
            new[column] = _every_text(new[column], lambda text: _without_ends(text, tokenizer))
    parts = texts_of(new, subject.columns)
    if repeats_prompt(parts):
        for part in set(parts).intersection(ANSWERS):
            new[subject.columns[part]] = parts[part][len(plain(parts["prompt"])) :]
    return new


def _every_text(value: Any, change: Callable[[str], str]) -> Any:
    """A text, or the texts of messages, changed; anything else as it is."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {
            k: _every_text(v, change) if k in ("content", "value", "text") else v for k, v in value.items()
        }
    return [_every_text(part, change) for part in value] if isinstance(value, list) else value


def _without_ends(text: str, tokenizer: Any) -> str:
    bos, eos = tokenizer.bos_token, tokenizer.eos_token
    if bos and bos != eos:
        text = text.replace(bos, "")
    while eos and text.rstrip().endswith(eos):
        text = text.rstrip().removesuffix(eos)
    return text
