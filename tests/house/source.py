"""The package's source as the house tests read it."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "trellis"


@cache
def modules(package: Path = PACKAGE) -> tuple[tuple[str, ast.Module], ...]:
    """(path below `package`, syntax tree) of every module."""
    paths = sorted(package.rglob("*.py"))
    return tuple((p.relative_to(package).as_posix(), ast.parse(p.read_text(encoding="utf-8"))) for p in paths)


def imports(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of everything that the module `name` imports, inside functions too."""
    here = ("trellis", *Path(name).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def tracked(*patterns: str) -> list[Path]:
    """Files that git knows or would take, matching `patterns`."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]
