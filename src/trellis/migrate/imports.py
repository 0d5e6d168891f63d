"""Imports in a script: from TRL, wherever it kept a name, to where the name is here."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

from .names import SAME, Names
from .source import Source

ELSEWHERE = {"set_seed": "transformers", "is_xpu_available": "transformers.utils", "tqdm": "tqdm"}
"""Names that TRL passed on from others."""
HERE = Path(__file__).parent.parent
_DEFINED = re.compile(r"^(?:class|def) (\w+)|^(\w+)\s*(?::[^=\n]+)?=|^\s*\"(\w+)\",?", flags=re.MULTILINE)
_SUBMODULE = re.compile(r"\btrl\.([\w.]+)")


def move_imports(source: Source, names: Names) -> None:
    """Rewrite every import of TRL, and add what the other changes need."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            _module(source, node)
        elif isinstance(node, ast.Name) and node.id == "trl" and "trl" in names.modules:
            source.replace(node, "trellis")
    _attributes(source, names)
    statements = [n for n in ast.walk(source.tree) if isinstance(n, ast.ImportFrom) and not n.level]
    for node in statements:
        if (node.module or "").split(".")[0] == "trl":
            _from(source, names, node)
    _drop_unused(source, names, statements)
    _add(source, names, statements)


def _attributes(source: Source, names: Names) -> None:
    """`trl.X`: what was renamed gets its name, and of what is nowhere here a person is told."""
    for root in (node for local in names.modules for node in names.uses(local)):
        module, node = names.modules[root.id], source.parents[root]
        while isinstance(node, ast.Attribute) and _file(f"{module}.{node.attr}") is not None:
            module, node = f"{module}.{node.attr}", source.parents[node]
        if not isinstance(node, ast.Attribute) or node.attr.startswith("__"):
            continue
        new, end = SAME.get(node.attr, node.attr), source.span(node)[1]
        if not (home_of(module, new) or "").startswith("trellis"):
            source.note(node, source.of(node), "", _missing(module, node.attr), hand=True)
        elif new != node.attr:
            source.replace((end - len(node.attr), end), new)
            source.note(node, node.attr, new, "its name since then")


def _file(module: str) -> Path | None:
    """The file that is here what TRL's `module` was there."""
    path = HERE.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file if file.is_file() else None


@cache
def _table(name: str) -> dict[str, str]:
    """A table of the package's `__init__`, which is above this room: it is read, not imported."""
    tree = ast.parse((HERE / "__init__.py").read_text(encoding="utf-8"))
    found = (
        n.value for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == name
    )
    return dict(ast.literal_eval(next(found)))


def public_names() -> set[str]:
    """What `from trellis import …` gives."""
    return set(_table("_HOME"))


def home_of(module: str, name: str) -> str | None:
    """Where `name`, which TRL had in `module`, is here; None where it is not."""
    if name in public_names():
        return "trellis"
    if name in ELSEWHERE:
        return ELSEWHERE[name]
    inner = module.partition(".")[2]
    file = _file(module) if inner else None
    return f"trellis.{inner}" if file is not None and _defines(file, name) else None


def _defines(file: Path, name: str) -> bool:
    text = file.read_text(encoding="utf-8")
    imported = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return name in imported or any(name in found for found in _DEFINED.findall(text))


def _module(source: Source, node: ast.Import) -> None:
    for alias in node.names:
        if alias.name.split(".")[0] == "trl":
            start = source.span(alias)[0]
            source.replace((start, start + 3), "trellis")
            source.note(node, f"import {alias.name}", f"import trellis{alias.name[3:]}", "the package")


def _from(source: Source, names: Names, node: ast.ImportFrom) -> None:
    """One statement: names that live elsewhere leave it, and the rest comes from where it is here."""
    module, homes = node.module or "", {}
    for alias in node.names:
        if alias.name == "*":
            homes[alias] = "trellis"
            continue
        new, local = SAME.get(alias.name, alias.name), alias.asname or alias.name
        home = home_of(module, new)
        if home is None and not names.uses(local):
            source.remove_item(alias, node.names)
            names.dropped.add(alias)
            source.note(alias, f"import {alias.name}", "", "nothing uses it")
        elif home is None:
            source.note(alias, alias.name, "", _missing(module, alias.name), hand=True)
            homes[alias] = "trellis" if module.startswith("trl") else module
        else:
            homes[alias] = home
            _rename(source, names, alias, new)
    _settle(source, names, node, homes)


def _settle(source: Source, names: Names, node: ast.ImportFrom, homes: dict[ast.alias, str]) -> None:
    module = node.module or ""
    if not homes:
        names.dropped.add(node)
        return
    main = "trellis" if "trellis" in homes.values() else next(iter(homes.values()))
    for alias, home in homes.items():
        if home != main:
            source.remove_item(alias, node.names)
            new = SAME.get(alias.name, alias.name)
            names.want(home, f"{new} as {alias.asname}" if alias.asname else new)
    if module != main:
        start = source.text.index(module, source.span(node)[0])
        source.replace((start, start + len(module)), main)
        shown = ", ".join(alias.name for alias in homes)
        source.note(node, f"from {module} import {shown}", f"from {main} import …", "where it is here")


def _rename(source: Source, names: Names, alias: ast.alias, new: str) -> None:
    if new == alias.name:
        return
    start = source.span(alias)[0]
    source.replace((start, start + len(alias.name)), new)
    source.note(alias, alias.name, new, "its name since then")
    if alias.asname is None:
        for node in names.uses(alias.name):
            source.replace(node, new)


def _missing(module: str, name: str) -> str:
    if name in _table("_GONE"):
        return _table("_GONE")[name]
    return f"{module}.{name} has no counterpart here; write what you used of it yourself"


def _drop_unused(source: Source, names: Names, statements: list[ast.ImportFrom]) -> None:
    """Names of other packages that only what is gone had used."""
    for node in statements:
        gone = [a for a in node.names if _only_gone(source, names, node, a)]
        for alias in gone:
            names.dropped.add(alias)
            source.remove_item(alias, node.names)
        if gone and all(alias in names.dropped for alias in node.names):
            names.dropped.add(node)


def _only_gone(source: Source, names: Names, node: ast.ImportFrom, alias: ast.alias) -> bool:
    local = alias.asname or alias.name
    used = names.seen.get(local, [])
    ours = (node.module or "").split(".")[0] in ("trl", "trellis")
    return (
        bool(used)
        and alias not in names.dropped
        and local not in names.kept
        and all(names.gone(n) for n in used)
        and not (ours and ("trellis", local) in names.wanted)
    )


def _add(source: Source, names: Names, statements: list[ast.ImportFrom]) -> None:
    """The imports that other changes need: in a statement of that module, else on a line after the imports."""
    wanted: dict[str, list[str]] = {}
    for module, name in names.wanted:
        if not any(
            _module_now(n) == module and any(a.name == name and a not in names.dropped for a in n.names)
            for n in statements
        ):
            wanted.setdefault(module, []).append(name)
    for module, new in wanted.items():
        if module == "trellis" and any(
            a.name == "*" for n in statements if _module_now(n) == "trellis" for a in n.names
        ):
            continue
        place = next((n for n in statements if _module_now(n) == module and n not in names.dropped), None)
        if place is not None:
            last = max((a for a in place.names if a not in names.dropped), key=lambda a: source.span(a))
            source.insert(source.span(last)[1], "".join(f", {name}" for name in new))
        else:
            _new_line(source, f"from {module} import {', '.join(new)}\n", module)
    for node in statements:
        if node in names.dropped:
            source.cut(node)


def _module_now(node: ast.ImportFrom) -> str:
    module = node.module or ""
    return "trellis" if module == "trl" or module.startswith("trl.") else module


def _new_line(source: Source, line: str, module: str) -> None:
    imports = [n for n in source.tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    future = [n for n in imports if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    ours = [
        n
        for n in imports
        if isinstance(n, ast.ImportFrom) and (n.module or "").split(".")[0] in ("trl", "trellis")
    ]
    place: Any = ours[-1] if ours else imports[-1] if imports else future[-1] if future else None
    source.insert(source.lines(place)[1] if place is not None else 0, line)
