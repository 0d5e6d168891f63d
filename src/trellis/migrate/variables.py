"""Which variables a piece of code sets, and which it takes from around it."""

from __future__ import annotations

import ast

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def stored(*nodes: ast.AST) -> set[str]:
    """The variables that `nodes` set."""
    found = (n for node in nodes for n in ast.walk(node))
    return {n.id for n in found if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def read(*nodes: ast.AST) -> set[str]:
    """The variables that `nodes` take from around them: those of a comprehension are its own."""
    found: set[str] = set()
    for node in nodes:
        found |= {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) else set()
        inner = read(*ast.iter_child_nodes(node))
        if isinstance(node, COMPREHENSIONS):
            inner -= stored(*(generator.target for generator in node.generators))
        found |= inner - ({a.arg for a in node.args.args} if isinstance(node, ast.Lambda) else set())
    return found
