"""Sample tables: what the policy writes, beside its score, in the terminal and in trackers."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

Row = Mapping[str, Any]
_WIDEST = 60
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Escape sequences begin with one of these, and the marks that turn the direction of a whole line are some."""


def plain_cell(value: Any) -> str:
    """A value as text that no terminal obeys: control characters of a sample or a data set are written out."""
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", _plain(value))


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):  # a chat
        return " | ".join(f"{m.get('role')}: {m.get('content')}" for m in value)
    return str(value)


def _cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [plain_cell(name) for name in names], [
        [plain_cell(row.get(name, "")) for name in names] for row in rows
    ]


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def render(rows: Sequence[Row], title: str = "") -> str:
    """The rows as plain aligned columns, one line each; long cells are cut."""
    names, cells = _cells(rows)
    lines = [[_cut(c) for c in line] for line in (names, *cells)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    text = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*([plain_cell(title)] if title else []), *text])


def show(rows: Sequence[Row], title: str = "", file: TextIO | None = None) -> None:
    """Print the rows: a table with wrapped cells on a terminal, plain columns into a file or pipe."""
    file = file or sys.stdout
    if not rows:
        return
    if not file.isatty():
        print(render(rows, title), file=file, flush=True)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names, cells = _cells(rows)
    table = Table(title=Text(plain_cell(title)) if title else None, show_lines=True)
    for name in names:
        table.add_column(Text(name), overflow="fold")
    for line in cells:
        table.add_row(*(Text(c) for c in line))  # Text: a sampled "[bold]" is not markup
    Console(file=file).print(table)


MARKS = re.compile(r"[\\`*_{}\[\]()#+!|~]")
"""What Markdown would read as more than a letter."""


def literal(value: Any) -> str:
    """A value as one line of Markdown that says it and does nothing else: no markup, no HTML, no control characters."""
    text = plain_cell(value).replace("\n", " ")
    return html.escape(MARKS.sub(r"\\\g<0>", text), quote=False)


def _markdown(rows: Sequence[Row]) -> str:
    names, cells = _cells(rows)
    clean = [[literal(c) for c in line] for line in (names, *cells)]
    clean.insert(1, ["---"] * len(names))
    return "\n".join("| " + " | ".join(line) + " |" for line in clean)


def send(rows: Sequence[Row], *, name: str, step: int, callbacks: Iterable[Any] = ()) -> list[str]:
    """Log the rows as table `name` to every tracker in use; returns which took it.

    `callbacks` are the trainer's (TensorBoard's holds its writer); wandb is used where a run is active.
    """
    sent = []
    for callback in callbacks:
        writer = getattr(callback, "tb_writer", None)
        if writer is not None:
            writer.add_text(name, _markdown(rows), step)
            sent.append("tensorboard")
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        names, cells = _cells(rows)
        wandb.log({name: wandb.Table(columns=names, data=cells)})
        sent.append("wandb")
    return sent
