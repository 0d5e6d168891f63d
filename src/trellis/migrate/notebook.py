"""Notebooks: the code cells as one script, so that a name of one cell is known in the next; outputs and text stay."""

from __future__ import annotations

import json
import re
from typing import Any

from .notes import CannotRead, Note
from .plain import migrate_shell
from .python import migrate_python

_MARK = "# trellis-cell {}"
_MAGIC = re.compile(r"^([ \t]*)([!%].*)$", flags=re.MULTILINE)
_HIDDEN = re.compile(r"^([ \t]*)pass  # trellis-magic (.*)$", flags=re.MULTILINE)


def migrate_notebook(text: str, path: str = "") -> tuple[str, list[Note]]:
    """The notebook with its code migrated; lines count within all code cells, as if they were one file. Raises CannotRead."""
    try:
        book = json.loads(text)
        cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError) as error:
        raise CannotRead(f"{path}:1: this is no notebook that can be read: {error}") from error
    parts = ["".join(cell["source"]) for cell in cells]
    whole = "".join(f"{_MARK.format(i)}\n{_hidden(part)}\n" for i, part in enumerate(parts))
    moved, notes = migrate_python(whole, path)
    after = [_shown(part, notes, i) for i, part in enumerate(re.split(r"# trellis-cell \d+\n", moved)[1:])]
    if after == parts:
        return text, []
    for cell, before, now in zip(cells, parts, after, strict=True):
        if before != now:
            cell["source"] = now.splitlines(keepends=True) if isinstance(cell["source"], list) else now
    indent: Any = 1 if "\n" in text.strip() else None
    return json.dumps(book, indent=indent, ensure_ascii=False) + ("\n" if text.endswith("\n") else ""), notes


def _hidden(part: str) -> str:
    """Lines of IPython as lines of Python that do nothing; a cell of another language as comments."""
    if part.lstrip().startswith("%%") and not part.lstrip().startswith(("%%time", "%%capture")):
        return "\n".join(f"pass  # trellis-magic {line}" for line in part.split("\n"))
    return _MAGIC.sub(r"\1pass  # trellis-magic \2", part)


def _shown(part: str, notes: list[Note], cell: int) -> str:
    """The cell as IPython reads it, its commands migrated too."""

    def line(match: re.Match[str]) -> str:
        command, said = migrate_shell(match[2])
        notes.extend(Note(cell + 1, n.old, n.new, f"code cell {cell + 1}: {n.why}", n.hand) for n in said)
        return match[1] + command

    return _HIDDEN.sub(line, part.removesuffix("\n"))
