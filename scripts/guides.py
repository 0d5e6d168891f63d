"""Fills the guides with the real source, and finds the tests that they name: `python -m scripts.guides`.

A line `<!-- source: trellis.losses.preference:sigmoid -->` or `<!-- source: examples/annotated/dpo.py -->` asks for the
definition (`Class.method` too, or an assignment at the top of a module) or the whole file; the fenced block below it is
written anew.
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
ASKED = re.compile(r"^<!-- source: (\S+) -->\n(?:```py\n.*?^```\n)?", flags=re.DOTALL | re.MULTILINE)
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def file_of(module: str) -> Path:
    """The file of a module of ours. Raises ValueError where there is none."""
    for root in (ROOT / "src", ROOT):
        path = root.joinpath(*module.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    raise ValueError(f"found no module {module}; write one of ours, such as trellis.losses.preference")


def names_of(node: ast.stmt) -> set[str]:
    """What a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def definition(file: Path, name: str) -> str:
    """The source of a definition, its decorators included, from the left margin. Raises ValueError where there is none."""
    text = file.read_text(encoding="utf-8")
    body: list[ast.stmt] = ast.parse(text).body
    node: ast.stmt | None = None
    for part in name.split("."):
        node = next((n for n in reversed(body) if part in names_of(n)), None)  # overloads come first
        if node is None:
            raise ValueError(f"{file.relative_to(ROOT)} defines no {name}; write the name of something in it")
        body = getattr(node, "body", [])
    assert node is not None  # a name has at least one part
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    return textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno]))


def source(asked: str) -> str:
    """What a `source:` line asks for."""
    module, colon, name = asked.partition(":")
    if colon:
        return definition(file_of(module), name)
    return (ROOT / module).read_text(encoding="utf-8").rstrip("\n")


def filled(text: str) -> str:
    """The text of a page with every block that it asks for."""
    return ASKED.sub(lambda found: f"<!-- source: {found[1]} -->\n```py\n{source(found[1])}\n```\n", text)


def tests_of(file: Path) -> set[str]:
    """The names of the tests in a file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")}


def missing_tests(text: str) -> list[str]:
    """Tests that a page names and that do not exist."""
    gone = []
    for path, name in NAMED_TEST.findall(text):
        file = ROOT / path
        if not file.is_file() or (name and name not in tests_of(file)):
            gone.append(f"{path}::{name}" if name else path)
    return gone


def pages() -> list[Path]:
    """Every page of the documentation."""
    return sorted(DOCS.rglob("*.md"))


def main() -> None:
    """Write the pages that ask for source anew."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        new = filled(text)
        if new != text:
            page.write_text(new, encoding="utf-8")
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
