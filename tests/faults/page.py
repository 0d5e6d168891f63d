"""The table of docs/reliability.md, from the tests: `python -m tests.faults.page` writes it anew.

A test that injects a fault says so in its docstring: a line `Fault: …` and a line `Then: …`, each of which may run over several.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: written by tests/faults/page.py -->\n", "<!-- end -->"
SAID = re.compile(r"Fault: (.*?)\n\s*Then: (.*)", re.DOTALL)
TITLES = {
    "test_kill.py": "A process that dies",
    "test_kill9.py": "A process that dies",
    "test_equal.py": "A process that dies",
    "test_signals.py": "Signals",
    "test_saves.py": "Saves and checkpoints",
    "test_saving.py": "Saves and checkpoints",
    "test_damage.py": "Saves and checkpoints",
    "test_checkpoint.py": "Saves and checkpoints",
    "test_bad_steps.py": "Numbers gone wrong",
    "test_memory.py": "Memory",
    "test_watchdog.py": "Hangs",
    "test_ranks.py": "Several processes",
    "test_soak.py": "Long runs",
    "test_bad_data.py": "Bad data",
    "test_bad_files.py": "Bad data",
    "test_fuzz_rows.py": "Bad data",
    "test_fuzz_parser.py": "Bad data",
    "test_security.py": "Security",
    "test_determinism.py": "The same again",
}


def faults() -> Iterator[tuple[str, str, str, str]]:
    """(title, fault, what happens, test) of every test that says so, in the order of `TITLES`, then of the files."""
    files = sorted(
        p
        for folder in ("faults", "checkpoint", "resume", "rewards")
        for p in (ROOT / "tests" / folder).glob("test_*.py")
    )
    order = list(TITLES)
    for path in sorted(files, key=lambda p: order.index(p.name) if p.name in order else len(order)):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            said = (
                SAID.fullmatch((ast.get_docstring(node) or "").strip())
                if isinstance(node, ast.FunctionDef)
                else None
            )
            if said:
                title = TITLES.get(path.name, "Data, rewards and tools")
                fault, then = (" ".join(part.split()) for part in said.groups())
                yield title, fault, then, f"{path.relative_to(ROOT / 'tests').as_posix()}::{node.name}"


def table() -> str:
    """Markdown: a table per title."""
    lines: list[str] = []
    for title, fault, then, test in faults():
        if f"### {title}" not in lines:
            lines += ["", f"### {title}", "", "| Fault | What happens | Test |", "|---|---|---|"]
        lines.append(
            "| " + " | ".join(part.replace("|", "\\|") for part in (fault, then, f"`{test}`")) + " |"
        )
    return "\n".join([*lines[1:], ""]) + "\n"


def written() -> str:
    """The page as it should be."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
