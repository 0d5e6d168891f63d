"""A check of one data set for one method: what the trainer makes of it, what was found, and what to type next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import row_rules, set_rules, token_rules
from .findings import RULES, Finding, Subject, ordered
from .lengths import Spread, spread
from .reading import Rows, TokenRow, read, sequences

__all__ = ["Check", "check_rows", "row_rules", "set_rules", "token_rules"]


@dataclass(frozen=True)
class Check:
    """What is said of a data set. `samples`: (number of the row, its parts as a model reads them)."""

    subject: Subject
    findings: list[Finding]
    samples: list[tuple[int, list[TokenRow]]]

    @property
    def errors(self) -> int:
        """Findings that stop training or spoil it."""
        return self._count("error")

    @property
    def warnings(self) -> int:
        """Findings to look at."""
        return self._count("warning")

    @property
    def mendable(self) -> bool:
        """Whether `--fix` would change something."""
        return any(found.mends for found in self.findings)

    def status(self, strict: bool) -> int:
        """The exit status: 2 with errors, 1 with warnings where `strict`, else 0."""
        return 2 if self.errors else int(strict and self.warnings > 0)

    def lengths(self) -> dict[str, list[int]]:
        """{part: tokens of every row}: the row and, where there are both, its prompt and what follows it."""
        tokens = [row for _, row in self.subject.tokens]
        found = {
            "prompt": [row.prompt_len for row in tokens],
            "answer": [len(row.ids) - row.prompt_len for row in tokens],
            "row": [len(row.ids) for row in tokens],
        }
        if not all(any(found[part]) for part in ("prompt", "answer")):
            return {"row": found["row"]} if tokens else {}
        return found

    def spreads(self) -> dict[str, Spread]:
        """The spread of each of `lengths`."""
        return {part: spread(counts) for part, counts in self.lengths().items()}

    def _count(self, severity: str) -> int:
        return sum(found.severity == severity for found in self.findings)


def check_rows(
    rows: Rows,
    method: str,
    args: Any,
    tokenizer: Any,
    *,
    test: Sequence[Any] = (),
    functions: Sequence[Any] = (),
    show: int = 3,
) -> Check:
    """Check `rows` for a method with its config `args`; `functions` score answers, `show` rows are kept as samples."""
    reading = read(rows, method, args, tokenizer)
    subject = Subject(rows, reading, tokenizer, args, method, list(test), list(functions))
    found = [] if reading.schema is None else [f for rule in RULES for f in rule(subject)]
    if reading.schema is None:
        found = list(row_rules.unreadable(subject))
    return Check(subject, ordered(found), _samples(subject, show))


def _samples(subject: Subject, show: int) -> list[tuple[int, list[TokenRow]]]:
    reading = subject.reading
    count = len(reading.prepared)
    picked = sorted({round(i * (count - 1) / max(1, show - 1)) for i in range(min(show, count))})
    return [(reading.origin[i], sequences(reading.prepared[i], subject.family)) for i in picked]
