"""Size, complexity and the words that have no place in finished code."""

from __future__ import annotations

import ast
import builtins
import re
import subprocess
import sys

import pytest

from .source import PACKAGE, ROOT, is_door, modules, tracked

LINES, TEST_LINES, FUNCTION_LINES, COMPLEXITY = 300, 400, 50, 8


def test_files_answer_one_question():
    lines = {p.relative_to(ROOT).as_posix(): len(p.read_text().splitlines()) for p in tracked("*.py")}
    limits = {name: TEST_LINES if name.startswith("tests/") else LINES for name in lines}
    assert {name: count for name, count in lines.items() if count > limits[name]} == {}


def test_functions_fit_a_screen():
    long = [
        f"{name}:{node.lineno} {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    ]
    assert long == []


def complex_functions(*paths: str) -> str:
    limit = f"lint.mccabe.max-complexity={COMPLEXITY}"
    options = [
        "--select",
        "C901",
        "--ignore-noqa",
        "--config",
        limit,
        "--output-format",
        "concise",
        "--quiet",
    ]
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", *options, *paths]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout


def test_functions_stay_simple():
    assert complex_functions("src", "examples", "benchmarks") == ""


def test_a_knot_is_noticed(tmp_path):
    body = "".join(f"    if x == {i}:\n        return {i}\n" for i in range(COMPLEXITY))
    (tmp_path / "knot.py").write_text(f"def knot(x):\n{body}    return None\n")
    assert "knot" in complex_functions(str(tmp_path / "knot.py"))


def test_every_file_is_named_for_what_it_holds():
    vague = ("utils", "util", "helpers", "misc", "common")
    names = [name for name, _ in modules() if not is_door(name)]
    assert [name for name in names if name.rsplit("/", 1)[-1].removesuffix(".py") in vague] == []


def inherits_twice(node: ast.ClassDef) -> bool:
    """An exception may be of two kinds, so that it is caught as either; nothing else has two bases."""
    kinds = [getattr(builtins, ast.unparse(base), object) for base in node.bases]
    return len(kinds) > 1 and not all(issubclass(kind, BaseException) for kind in kinds)


def test_trainers_do_not_mix_in():
    mixed = [
        f"{name}:{node.lineno} {node.name}"
        for name, tree in modules(PACKAGE / "trainers")
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and ("Mixin" in node.name or inherits_twice(node))
    ]
    assert mixed == []


def swallows(handler: ast.ExceptHandler) -> bool:
    everything = handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException")
    return (
        everything and not handler.name and not any(isinstance(node, ast.Raise) for node in ast.walk(handler))
    )


def test_no_handler_swallows_everything():
    handlers = [
        f"{name}:{node.lineno}"
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and swallows(node)
    ]
    assert handlers == []


@pytest.mark.parametrize(
    ("pattern", "where"),
    [
        (r"\bNotImplementedError\b|\b(TODO|FIXME|XXX)\b", ("src", "examples", "benchmarks", "tests")),
        (r"pytest\.(skip|xfail)|mark\.(skip\b|xfail)|unittest\.mock|monkeypatch|MagicMock", ("tests",)),
        (r"\bsleep\(", ("tests",)),
    ],
)
def test_words_of_unfinished_code_are_absent(pattern, where):
    found = [
        f"{path.relative_to(ROOT)}:{number} {line.strip()}"
        for path in tracked(*(f"{folder}/**.py" for folder in where))
        if path.name != "test_shape.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        (r"(?<![\w.:/-])/(?:root|home|work|Users|mnt|opt)/\w", ("*",)),
        (
            r"(?<![\w.:/<-])/(?:root|home|work|Users|mnt|opt|tmp|var|usr)/\w",
            ("README.md", "docs/*.md", "CONTRIBUTING.md"),
        ),
        (r"\.\./shared", ("*",)),
    ],
)
def test_nothing_of_one_machine_is_in_the_tree(pattern, files):
    found = []
    for path in tracked(*files):
        if path.suffix in (".gz", ".png", ".safetensors") or path == ROOT / "tests/house/test_shape.py":
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        found += [
            f"{path.relative_to(ROOT)}:{n} {line.strip()}"
            for n, line in enumerate(lines, 1)
            if re.search(pattern, line)
        ]
    assert found == []
