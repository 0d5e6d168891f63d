"""A Python source with its syntax tree, and edits of ranges of it: what is not edited stays as it was written."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

from .notes import CannotRead, Note

UNKNOWN = object()
WIDTH = 110
_ROW = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
"""A line as Python counts them: str.splitlines ends one at a form feed too, and inside of texts."""
_ALONE = re.compile(r"[ \t]*,?[ \t]*(#[^\n]*)?(\n|\Z)")


def literal(value: Any) -> str:
    """`value` as Python source, texts in double quotes."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


class Source:
    """`text`, its tree, the edits made so far and the notes about them. Raises CannotRead for what is no Python."""

    def __init__(self, text: str, path: str = "") -> None:
        self.text = text
        self.edits: list[tuple[int, int, str]] = []
        self.notes: list[Note] = []
        self.removed: dict[ast.AST, Sequence[Any]] = {}
        self.appended: dict[ast.Call, list[str]] = {}
        try:
            self.tree = ast.parse(text)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None) or 1
            raise CannotRead(f"{path}:{line}: this is no Python that can be read: {error}") from error
        self.parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}
        self._starts = [0]
        self._rows = _ROW.findall(text)
        for row in self._rows:
            self._starts.append(self._starts[-1] + len(row))

    # ---- where ---------------------------------------------------------------------------------------------------------

    def at(self, line: int, column: int) -> int:
        """The offset of (line, column in UTF-8 bytes)."""
        row = self._rows[line - 1] if line <= len(self._rows) else ""
        return self._starts[line - 1] + len(row.encode()[:column].decode(errors="ignore"))

    def span(self, node: Any) -> tuple[int, int]:
        """Where `node` is."""
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)

    def of(self, node: Any) -> str:
        """The source of `node`, as it was."""
        start, end = self.span(node)
        return self.text[start:end]

    def indent(self, node: Any) -> str:
        """The blanks in front of the line on which `node` begins."""
        row = self._rows[node.lineno - 1]
        return row[: len(row) - len(row.lstrip())]

    def lines(self, first: Any, last: Any | None = None) -> tuple[int, int]:
        """From the start of the line of `first` to the end of the last line of `last`."""
        return self._starts[first.lineno - 1], self._starts[min((last or first).end_lineno, len(self._rows))]

    def first_import(self) -> ast.stmt:
        """The first import that is not of the future."""
        imports = [n for n in self.tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        return next(n for n in imports if not isinstance(n, ast.ImportFrom) or n.module != "__future__")

    def statement(self, node: ast.AST) -> ast.stmt:
        """The statement that `node` is in."""
        while not isinstance(node, ast.stmt):
            node = self.parents[node]
        return node

    # ---- what is changed -----------------------------------------------------------------------------------------------

    def replace(self, where: Any, new: str) -> None:
        """Put `new` in the place of a node or of (start, end)."""
        start, end = where if isinstance(where, tuple) else self.span(where)
        if (start, end, new) not in self.edits:
            self.edits.append((start, end, new))

    def insert(self, offset: int, new: str) -> None:
        """Put `new` before what is at `offset`."""
        self.replace((offset, offset), new)

    def cut(self, node: ast.stmt) -> None:
        """Take a statement away, with its lines where it has them to itself; a block that it was alone in gets a `pass`."""
        start, end = self.lines(node)
        alone = not self.text[start : self.span(node)[0]].strip() and _ALONE.fullmatch(
            self.text, self.span(node)[1], end
        )
        block = next((b for b in self._blocks(self.parents[node]) if node in b), [])
        if not alone:
            self.replace(node, "pass")
        else:
            only = len(block) == 1 and not isinstance(self.parents[node], ast.Module)
            self.replace((start, end), f"{self.indent(node)}pass\n" if only else "")

    @staticmethod
    def _blocks(node: ast.AST) -> list[list[ast.stmt]]:
        return [
            getattr(node, name)
            for name in ("body", "orelse", "finalbody")
            if isinstance(getattr(node, name, None), list)
        ]

    def remove_item(self, item: Any, among: Sequence[Any]) -> None:
        """Take one of several things that commas separate away, with its line where it has one of its own."""
        self.removed[item] = among

    def _remove(self, among: Sequence[Any]) -> None:
        """Cut what has been removed of `among`, with the commas that belong to it."""
        order = sorted(among, key=lambda node: self.span(node))
        inline = [i for i, item in enumerate(order) if item in self.removed and not self._own_line(item)]
        for i in inline:
            later = next((n for n in order[i + 1 :] if n not in self.removed), None)
            sooner = next((n for n in reversed(order[:i]) if n not in self.removed), None)
            start, end = self.span(order[i])
            if later is not None:
                self.replace((start, self.span(order[i + 1])[0]), "")
            else:
                self.replace((self.span(sooner)[1] if sooner is not None else start, end), "")

    def _own_line(self, item: Any) -> bool:
        """Whether `item` stood on lines of its own; they are cut then."""
        start, end = self.span(item)
        first = self._starts[item.lineno - 1]
        alone = _ALONE.match(self.text, end)
        if self.text[first:start].strip() or not alone:
            return False
        self.replace((first, alone.end()), "")
        return True

    def append(self, call: Any, argument: str) -> None:
        """Give `call` one more argument; it is written when all that goes is known (`settle`)."""
        self.appended.setdefault(call, []).append(argument)

    def settle(self) -> None:
        """Cut what was removed, and write the appended arguments as the others of their call are."""
        for among in {id(among[0]): among for among in self.removed.values()}.values():
            self._remove(among)
        for call, arguments in self.appended.items():
            self._place(call, arguments)
        self.appended = {}

    def _place(self, call: Any, arguments: list[str]) -> None:
        given = [a for a in (*call.args, *call.keywords) if a not in self.removed]
        if not given:
            self.insert(self.span(call)[1] - 1, ", ".join(arguments))
            return
        last = max(given, key=lambda node: self.span(node))
        start, inner = self._starts[last.lineno - 1], self.indent(last)
        line = self._rows[last.end_lineno - 1].rstrip()
        if not self.text[start : self.span(last)[0]].strip():
            text = "".join(f",\n{inner}{argument}" for argument in arguments)
        elif len(line) + len(", ".join(arguments)) < WIDTH:
            text = "".join(f", {argument}" for argument in arguments)
        else:
            text = ",\n" + _filled(arguments, inner + 4 * " ")
        self.insert(self.span(last)[1], text)

    def above(self, node: Any) -> int:
        """The start of the comment lines that stand right above `node`, or of its own line."""
        line = node.lineno
        while line > 1 and self._rows[line - 2].lstrip().startswith("#"):
            line -= 1
        return self._starts[line - 1]

    def definition(self, offset: int, text: str, indent: str) -> str:
        """`text`, a function, with the empty lines around it that belong there when it is put at `offset`."""
        wanted = 1 if indent else 2
        before = self.text[:offset]
        blank = len(before) - len(before.rstrip("\n")) - 1 if before.strip() else wanted
        return "\n" * max(0, wanted - blank) + text.rstrip("\n") + "\n" * (wanted + 1)

    def note(self, node: Any, old: str, new: str, why: str, *, hand: bool = False) -> None:
        """Say what became of something at `node`."""
        found = Note(node.lineno, old, new, why, hand)
        if found not in self.notes:
            self.notes.append(found)

    # ---- the result ----------------------------------------------------------------------------------------------------

    def rendered(self, start: int = 0, end: int | None = None) -> str:
        """The text from `start` to `end` with the edits in it; an edit inside a larger one gives way."""
        end = len(self.text) if end is None else end
        inside = [e for e in self.edits if start <= e[0] and e[1] <= end]
        chosen = [e for e in inside if not any(o is not e and _covers(o, e) for o in inside)]
        result, place = [], start
        order = {id(edit): i for i, edit in enumerate(self.edits)}
        for first, last, new in sorted(chosen, key=lambda e: (e[0], e[1], order[id(e)])):
            result += [self.text[place : max(place, first)], new]
            place = max(place, last)
        return "".join([*result, self.text[place:end]])


def _filled(arguments: Sequence[str], indent: str) -> str:
    """The arguments on lines that are not too long."""
    lines = [indent]
    for i, argument in enumerate(arguments):
        more = argument + (", " if i + 1 < len(arguments) else "")
        if len(lines[-1]) + len(more) > WIDTH and lines[-1].strip():
            lines.append(indent)
        lines[-1] += more
    return "\n".join(line.rstrip(" ") for line in lines)


def _covers(outer: tuple[int, int, str], inner: tuple[int, int, str]) -> bool:
    if inner[0] == inner[1]:
        return outer[0] < inner[0] < outer[1]
    return outer[0] <= inner[0] and inner[1] <= outer[1] and outer[:2] != inner[:2]
