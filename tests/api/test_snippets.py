"""What the pages show exists: names that import, keyword arguments that are taken, commands that are there."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from dataclasses import is_dataclass

import pytest

import trellis
from tests.house.source import ROOT, tracked
from trellis.trainers.old_names import old_names

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in tracked("*.md", "docs/**.md")
}
BLOCKS = [
    pytest.param(block, id=f"{page}:{text[: text.index(block)].count(chr(10)) + 1}")
    for page, text in PAGES.items()
    for block in re.findall(r"^```(?:python|py)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
]


def wrong(code: str) -> list[str]:
    """Imports from trellis that fail, and keyword arguments that a public class or function does not take."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "trellis":
            module = importlib.import_module(node.module)
            found += [f"{node.module}.{a.name}" for a in node.names if not hasattr(module, a.name)]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in trellis.__all__:
            called = getattr(trellis, node.func.id)
            parameters = inspect.signature(called).parameters
            if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                continue
            taken = {*parameters, *(old_names(called) if is_dataclass(called) else ())}
            found += [f"{node.func.id}({k.arg}=…)" for k in node.keywords if k.arg and k.arg not in taken]
    return found


@pytest.mark.parametrize("block", BLOCKS)
def test_a_snippet_uses_what_exists(block):
    assert wrong(block) == []


def test_a_wrong_snippet_is_noticed():
    assert wrong("from trellis import PPOTrainer, DPOTrainr") == ["trellis.DPOTrainr"]
    assert wrong("PPOTrainer(model='m', reward_fn=f)") == ["PPOTrainer(reward_fn=…)"]
    assert wrong("PPOConfig(response_len=3)") == ["PPOConfig(response_len=…)"]


def test_the_make_targets_that_pages_name_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {
        name
        for text in PAGES.values()
        for name in re.findall(r"`?\bmake ([a-z]+)`?(?=[\s`)]* {2,}#|`)", text)
    }
    assert {"check", "test"} <= named
    assert named <= targets
