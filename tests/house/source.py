"""The package's source as the house tests read it."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "trellis"


DOORS = (
    "trainer/",
    "scripts/",
    "data_utils.py",
    "chat_template_utils.py",
    "import_utils.py",
    "mergekit_utils.py",
    "models/modeling_base.py",
    "models/modeling_value_head.py",
    "models/utils.py",
    "rewards/accuracy_rewards.py",
    "rewards/format_rewards.py",
    "rewards/other_rewards.py",
)
"""Import paths of existing scripts: they hand names on from where these live, and nobody inside imports from them."""


def is_door(name: str) -> bool:
    """Whether the module at the path (or with the dotted name) `name` below the package is one of DOORS, or in one."""
    path = name.removesuffix(".py").replace(".", "/") + "/"
    return any(path.startswith(door.removesuffix(".py").rstrip("/") + "/") for door in DOORS)


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
