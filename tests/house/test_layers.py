"""A module imports only from lower layers or from its own package, and the two lowest layers know nothing but torch."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import trellis

from .source import imports, is_door, modules

LAYERS = (
    ("types",),
    ("metrics",),
    ("advantages", "losses"),
    ("data", "models", "checkpoint"),
    ("scoring", "rollout"),
    ("engines",),
    ("rewards", "monitor"),
    ("judges",),
    ("agents",),
    ("trainers",),
    ("demo", "experimental"),
    ("plan", "report", "migrate"),
    ("cli",),
    ("", "__main__", "doors"),
)
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
PLAIN = RANK["losses"]


def room_of(name: str) -> str:
    """The package or module directly below `trellis` that the module at `name` belongs to ('' for `__init__`)."""
    if is_door(name):
        return "doors"
    return Path(name).parts[0].removesuffix(".py").removeprefix("__init__")


def home_of(name: str) -> str:
    """The room of what `trellis.name` gives: a room, or a public name's home."""
    return name if name in RANK else trellis._HOME.get(name, "").split(".")[0]


def complaints(package: dict[str, ast.Module]) -> list[str]:
    found = []
    for name, tree in package.items():
        room = room_of(name)
        if room not in RANK:
            found.append(f"{name}: the room {room!r} has no layer; give it one in LAYERS")
            continue
        for line, target in imports(name, tree):
            first, *rest = target.split(".")
            if rest == ["__version__"]:  # a fact, not a room
                fine = True
            elif first == "trellis":
                other = "doors" if is_door(".".join(rest)) else home_of(rest[0]) if rest else ""
                fine = other == room or RANK[other] < RANK[room]
            else:
                fine = RANK[room] > PLAIN or first == "torch" or first in sys.stdlib_module_names
            if not fine:
                found.append(f"{name}:{line} imports {target}")
    return found


def test_imports_point_downwards():
    assert complaints(dict(modules())) == []


@pytest.mark.parametrize(
    ("where", "planted"),
    [
        ("losses/planted.py", "from ..scoring import score"),
        ("losses/planted.py", "import transformers"),
        ("types.py", "from . import metrics"),
        ("metrics.py", "from .. import trellis"),
        ("advantages.py", "from trellis.trainers.base import PostTrainer"),
        ("scoring/planted.py", "def late():\n    from ..trainers import base\n"),
        ("data/planted.py", "from ..models import load_tokenizer"),
        ("trainers/planted.py", "from ..cli import main"),
        ("attic.py", "import math"),
        ("monitor/planted.py", "from .. import PPOTrainer"),
        ("trainers/planted.py", "from ..trainer import PPOTrainer"),
        ("models/planted.py", "from .utils import clone_chat_template"),
        ("models/__init__.py", "from . import modeling_value_head"),
    ],
)
def test_an_upward_import_is_noticed(where, planted):
    package = dict(modules())
    before = complaints(package)
    own = package[where].body if where in package else []
    package[where] = ast.Module(body=[*own, *ast.parse(planted).body], type_ignores=[])
    new = [line for line in complaints(package) if line not in before]
    assert len(new) == 1
    assert new[0].startswith(where)


@pytest.mark.parametrize(
    "name", [name for name, _ in modules() if is_door(name) and name != "import_utils.py"]
)
def test_a_door_hands_names_on_and_does_nothing_else(name):
    doc, *rest = dict(modules())[name].body
    assert isinstance(doc.value.value, str)
    assert all(isinstance(node, ast.ImportFrom | ast.Assign) for node in rest)
    assert [ast.unparse(t) for node in rest if isinstance(node, ast.Assign) for t in node.targets] == [
        "__all__"
    ]


def test_only_the_bases_know_the_loop_below():
    users = {
        name
        for name, tree in modules()
        for _, target in imports(name, tree)
        if target in ("transformers.Trainer", "transformers.trainer.Trainer")
    }
    assert users <= {f"trainers/{name}.py" for name in ("base", "on_policy", "sharding", "zero")}


def test_no_private_name_of_another_package_is_imported():
    private = [
        f"{name}:{line} imports {target}"
        for name, tree in modules()
        for line, target in imports(name, tree)
        if not target.startswith(("trellis", "__future__"))
        and any(p.startswith("_") for p in target.split("."))
    ]
    assert private == []
