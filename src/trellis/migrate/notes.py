"""What the migration of a file says: each change with its line and reason, and what is left to a person."""

from __future__ import annotations

from dataclasses import dataclass, field


class CannotRead(ValueError):
    """A file that is not what its name says: the message has the file, the line and the reason."""


@dataclass(frozen=True)
class Note:
    """`old → new` at `line` of the file as it was, and why; `hand`: nothing was changed, a person has to."""

    line: int
    old: str
    new: str
    why: str
    hand: bool = False

    def text(self) -> str:
        """One line."""
        arrow = f"{self.old} → {self.new}" if self.new else f"{self.old} dropped"
        return f"{self.old}: {self.why}" if self.hand else f"{arrow}: {self.why}"


@dataclass
class Migrated:
    """A file before and after, and what is to be said about it."""

    path: str
    before: str
    after: str
    notes: list[Note] = field(default_factory=list)

    @property
    def by_hand(self) -> list[Note]:
        """What a person has to look at."""
        return [note for note in self.notes if note.hand]
