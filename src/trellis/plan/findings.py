"""What a check finds: one sentence, how often, in which rows, and what to do; the rules file themselves here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .reading import Reading, Rows, TokenRow, sequences

SEVERITIES = ("error", "warning", "note")
SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """`severity`: "error" (training stops or goes wrong), "warning" (look at it), "note" (good to know). `count` rows of the
    data have it, `rows` are the first of them; `mends`: what `--fix` does about it, "" where only a person can."""

    severity: str
    text: str
    advice: str
    count: int = 0
    rows: tuple[int, ...] = ()
    mends: str = ""


@dataclass(frozen=True)
class Subject:
    """What rules look at. `rows` as given, `test` the rows held out, `reading` what the trainer makes of `rows`."""

    rows: Rows
    reading: Reading
    tokenizer: Any
    args: Any
    method: str
    test: Rows = field(default_factory=list)
    functions: list[Any] = field(default_factory=list)
    """Functions that score answers."""

    @property
    def family(self) -> str:
        """Which kind of rows the method reads: language, pairs, unpaired or prompts."""
        return self.reading.family

    @property
    def columns(self) -> dict[str, str]:
        """{part of a row: column}, as the method reads it."""
        return {} if self.reading.schema is None else self.reading.schema.columns

    @cached_property
    def texts(self) -> list[dict[str, Any]]:
        """The parts of every row that are text or messages."""
        return [texts_of(row, self.columns) for row in self.rows]

    @cached_property
    def tokens(self) -> list[tuple[int, TokenRow]]:
        """(number of the row, what a model reads of it) of all kept rows."""
        pairs = zip(self.reading.origin, self.reading.prepared, strict=True)
        return [(number, part) for number, row in pairs for part in sequences(row, self.family)]


Rule = Callable[[Subject], Iterator[Finding]]
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    """File a rule; a check asks all of them in the order of their files."""
    RULES.append(function)
    return function


def finding(
    severity: str, numbers: Sequence[int], text: str, advice: str, mends: str = ""
) -> Iterator[Finding]:
    """One finding where there are `numbers`, none otherwise."""
    rows = sorted(set(numbers))
    if rows:
        yield Finding(severity, text, advice, len(rows), tuple(rows[:SHOWN]), mends)


def texts_of(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """{part: text or messages} of a row; parts of token ids are left out."""
    found = {part: row.get(column) for part, column in columns.items()}
    return {part: value for part, value in found.items() if isinstance(value, str) or _messages(value)}


def _messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def strings(value: Any) -> Iterator[str]:
    """Every text in a value, roles and other names apart."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            if name not in ("role", "from", "type"):
                yield from strings(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from strings(part)


def plain(value: Any) -> str:
    """A text, or the texts of a conversation one under the other."""
    return "\n".join(strings(value))


def ordered(found: Sequence[Finding]) -> list[Finding]:
    """Errors, then warnings, then notes."""
    return sorted(found, key=lambda f: SEVERITIES.index(f.severity))
