"""What the names of a script stand for: what was imported from TRL under which name, and what variables were made of."""

from __future__ import annotations

import ast
from typing import Any

from ..trainers.old_fields import FIELDS
from ..trainers.old_keywords import ARGUMENTS
from .source import UNKNOWN, Source
from .variables import read

PACKAGES = ("trl", "trellis")
SAME = {
    "PPOv2Trainer": "PPOTrainer",
    "PPOv2Config": "PPOConfig",
    "RLOOv2Trainer": "RLOOTrainer",
    "RLOOv2Config": "RLOOConfig",
    "SFTScriptArguments": "ScriptArguments",
    "DPOScriptArguments": "ScriptArguments",
    "RewardScriptArguments": "ScriptArguments",
    "SftScriptArguments": "ScriptArguments",
    "DpoScriptArguments": "ScriptArguments",
}
"""Names that TRL gave up for others of the same meaning."""


class Names:
    """The imports and assignments of `source`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.local: dict[str, str] = {}
        self.modules: dict[str, str] = {}
        self.assigned: dict[str, list[tuple[ast.stmt, ast.expr]]] = {}
        self.functions: dict[str, ast.FunctionDef] = {}
        self.bound: dict[str, int] = {}
        self.dropped: set[ast.AST] = set()
        self.kept: set[str] = set()
        self.seen: dict[str, list[ast.Name]] = {}
        self.wanted: list[tuple[str, str]] = []
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Name):
                self.seen.setdefault(node.id, []).append(node)
            self._read(node)

    def _read(self, node: ast.AST) -> None:
        if isinstance(node, ast.ImportFrom):
            self._imported(node)
        elif isinstance(node, ast.Import):
            self._packages(node)
        elif isinstance(node, ast.Assign):
            for target in (t for t in node.targets if isinstance(t, ast.Name)):
                self.assigned.setdefault(target.id, []).append((node, node.value))
        elif isinstance(node, ast.FunctionDef):
            self.functions[node.name] = node
            self._bind(node.name, node.lineno)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            self._bind(node.id, node.lineno)

    def _packages(self, node: ast.Import) -> None:
        for alias in node.names:
            root = alias.name.split(".")[0]
            self._bind((alias.asname or root).split(".")[0], node.lineno)
            if root in PACKAGES:
                self.modules[alias.asname or root] = alias.name if alias.asname else root

    def _imported(self, node: ast.ImportFrom) -> None:
        root = (node.module or "").split(".")[0]
        for alias in node.names:
            self._bind(alias.asname or alias.name, node.lineno)
            if root in PACKAGES and alias.name == "*":
                self.local |= {name: name for name in (*ARGUMENTS, *FIELDS, *SAME)}
            elif root in PACKAGES and not node.level:
                self.local[alias.asname or alias.name] = alias.name
            if root == "transformers" and alias.name == "TrainingArguments":
                self.local[alias.asname or alias.name] = alias.name

    def _bind(self, name: str, line: int) -> None:
        self.bound[name] = min(line, self.bound.get(name, line))

    @property
    def concerned(self) -> bool:
        """Whether the script has to do with TRL or with us at all."""
        return bool(self.modules) or any(
            isinstance(node, ast.ImportFrom)
            and (node.module or "").split(".")[0] in PACKAGES
            and not node.level
            for node in ast.walk(self.source.tree)
        )

    def written(self, node: Any) -> str | None:
        """TRL's name of what `node` is, as it was written; None where it is nothing of TRL's."""
        if isinstance(node, ast.Name):
            return self.local.get(node.id)
        root: Any = node
        while isinstance(root, ast.Attribute):
            root = root.value
        inside = isinstance(node, ast.Attribute) and isinstance(root, ast.Name) and root.id in self.modules
        return node.attr if inside else None

    def known(self, node: Any) -> str | None:
        """Today's name of what `node` is."""
        name = self.written(node)
        return SAME.get(name, name) if name else None

    def calls(self, *names: str) -> list[ast.Call]:
        """Calls of what has one of these names today, in order."""
        found = [
            n for n in ast.walk(self.source.tree) if isinstance(n, ast.Call) and self.known(n.func) in names
        ]
        return sorted(found, key=lambda call: self.source.span(call))

    def made(self, node: Any) -> Any:
        """The expression that a variable was made of, if it was made once; else `node` itself."""
        if isinstance(node, ast.Name) and len(self.assigned.get(node.id, ())) == 1:
            return self.assigned[node.id][0][1]
        return node

    def value(self, node: Any) -> Any:
        """The value of an expression that is a literal, or a variable made of one; else UNKNOWN."""
        try:
            return ast.literal_eval(self.made(node))
        except (ValueError, TypeError, SyntaxError, MemoryError):
            return UNKNOWN

    def keys(self, node: Any) -> list[str]:
        """The keys of a dict that is written out; one that is nobody's where it is not."""
        value = self.value(node)
        return list(value) if isinstance(value, dict) and value else ["?"]

    def known_at(self, node: ast.AST, line: int) -> bool:
        """Whether every variable in `node` has been bound before `line`."""
        used = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
        return all(self.bound.get(name, 0) < line for name in used)

    def uses(self, name: str) -> list[ast.Name]:
        """Where the local `name` is read and has not been taken away."""
        return [n for n in self.seen.get(name, []) if isinstance(n.ctx, ast.Load) and not self.gone(n)]

    def gone(self, node: ast.AST) -> bool:
        """Whether `node` is inside of what has been taken away."""
        while node in self.source.parents:
            if node in self.dropped:
                return True
            node = self.source.parents[node]
        return False

    def keep(self, *nodes: ast.AST) -> None:
        """The source of `nodes` is written elsewhere: what they name is still needed."""
        self.kept |= read(*nodes)

    def want(self, module: str, name: str) -> None:
        """`from module import name` is needed now."""
        if (module, name) not in self.wanted:
            self.wanted.append((module, name))


def keyword(call: ast.Call, *names: str) -> ast.keyword | None:
    """The first keyword argument of one of these names."""
    return next((k for name in names for k in call.keywords if k.arg == name), None)
