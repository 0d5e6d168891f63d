"""A Python script from TRL to here, without running it."""

from __future__ import annotations

from .answers import move_answers
from .classic import move_loops
from .fields import move_fields
from .imports import move_imports
from .names import Names
from .notes import CannotRead, Note
from .source import Source
from .trainers import move_arguments, move_methods


def migrate_python(text: str, path: str = "") -> tuple[str, list[Note]]:
    """`text` as it has to be here, and the notes about it; a script without TRL stays as it is. Raises CannotRead."""
    source = Source(text, path)
    names = Names(source)
    if not names.concerned:
        return text, []
    for move in (move_loops, move_answers, move_fields, move_arguments, move_methods, move_imports):
        move(source, names)
    source.settle()
    after = source.rendered()
    try:
        Source(after, path)
    except CannotRead:
        note = Note(
            1,
            path or "the script",
            "",
            "it could not be rewritten as a whole; rewrite it by docs/migrate.md",
            hand=True,
        )
        return text, [note]
    return after, sorted(source.notes, key=lambda note: note.line)
