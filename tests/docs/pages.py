"""The code that README.md and docs/*.md show, block by block."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block: its page, the line it starts at, its language and its text."""

    page: str
    line: int
    language: str
    text: str


def blocks(page: Path, *languages: str) -> list[Block]:
    """The page's blocks in one of the languages, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page.name, text[: found.start()].count("\n") + 2, found[1], found[2])
        for found in FENCE.finditer(text)
        if found[1] in languages
    ]


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a shell block; a backslash joins lines, comments are left out."""
    joined = block.text.replace("\\\n", " ")
    split = (shlex.split(line, comments=True) for line in joined.splitlines())
    return [words for words in split if words]
