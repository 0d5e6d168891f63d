"""A check in words: the lines that the terminal and the page share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..data.pack import pack
from .check import Check
from .findings import Finding
from .lengths import SPREAD
from .reading import TokenRow

KINDS = {
    "prompt_completion": "prompt and completion",
    "pair_tokens": "pairs of token ids",
    "prompt_tokens": "prompts as token ids",
    "unpaired_tokens": "labelled answers as token ids",
    "tokens": "token ids",
}
LABELS = ("prompt", "trained", "left out")


def facts(check: Check) -> list[tuple[str, str]]:
    """(name, value) of what was found before any rule: the format, the rows, the tokens."""
    reading = check.subject.reading
    found: list[tuple[str, str]] = []
    if reading.schema is not None:
        kind = KINDS.get(reading.schema.kind, reading.schema.kind.replace("_", " "))
        columns = ", ".join(
            f"{part} = {column!r}" if part != column else repr(column)
            for part, column in reading.schema.columns.items()
        )
        found.append(
            (
                "format",
                f"{kind}; columns {columns}"
                + ("; conversations" if chats(check) else "; plain text" if texts(check) else ""),
            )
        )
    report = reading.report
    rows = len(check.subject.rows)
    if report is not None:
        found.append(
            (
                "rows",
                f"{rows} in, {report.rows_kept} kept, {report.rows_cut} cut, {rows - report.rows_kept} left out",
            )
        )
        if report.unit != "prompt tokens":
            found.append(("ends", f"{report.stopped:.0%} end in a trained end token"))
    found += _packed(check)
    if check.subject.test:
        found.append(("test", f"{len(check.subject.test)} rows held out"))
    found += [(f"{part} tokens", f"{spread} ({SPREAD})") for part, spread in check.spreads().items()]
    return found


def _packed(check: Check) -> list[tuple[str, str]]:
    """How full packed rows are."""
    args, rows = check.subject.args, check.subject.reading.prepared
    if not getattr(args, "packing", False) or not rows:
        return []
    joined = pack(rows, args.max_length, args.packing_strategy)
    full = sum(len(row["input_ids"]) for row in joined) / (len(joined) * args.max_length)
    return [("packed", f"{len(joined)} rows of at most {args.max_length} tokens, {full:.0%} full")]


def chats(check: Check) -> bool:
    """Whether the rows are conversations."""
    return any(isinstance(value, list) for parts in check.subject.texts[:1] for value in parts.values())


def texts(check: Check) -> bool:
    """Whether the rows are texts."""
    return any(isinstance(value, str) for parts in check.subject.texts[:1] for value in parts.values())


def says(found: Finding) -> str:
    """A finding in one line."""
    return f"{found.count} × {found.text}" if found.rows else found.text


def where(found: Finding) -> str:
    """The numbers of the first rows, from 0; "" where it is about the whole data."""
    if not found.rows:
        return ""
    more = ", …" if found.count > len(found.rows) else ""
    return f"row{'s' if found.count != 1 else ''} {', '.join(map(str, found.rows))}{more}"


def summary(check: Check) -> str:
    """How many findings of each severity."""
    counts = [(check.errors, "error"), (check.warnings, "warning")]
    counts.append((len(check.findings) - check.errors - check.warnings, "note"))
    return ", ".join(f"{count} {name}{'s' if count != 1 else ''}" for count, name in counts)


def labelled(row: TokenRow, tokenizer: Any) -> Iterator[tuple[str, str]]:
    """(written form of a token, one of LABELS) of a row."""
    for place, (token, trained) in enumerate(zip(row.ids, row.mask, strict=True)):
        label = "trained" if trained else "prompt" if place < max(1, row.prompt_len) else "left out"
        yield written(token, tokenizer), label


def written(token: int, tokenizer: Any) -> str:
    """A token as it is read, or, where it is no whole character, as the vocabulary writes it."""
    text = tokenizer.decode([token])
    return str(tokenizer.convert_ids_to_tokens(token)) if not text or "\ufffd" in text else text


def runs(row: TokenRow, tokenizer: Any) -> list[tuple[str, str]]:
    """(text, label) of a row's stretches of one label."""
    found: list[tuple[str, str]] = []
    start = 0
    labels = [label for _, label in labelled(row, tokenizer)]
    for end in range(1, len(labels) + 1):
        if end == len(labels) or labels[end] != labels[start]:
            found.append((tokenizer.decode(row.ids[start:end]), labels[start]))
            start = end
    return found
