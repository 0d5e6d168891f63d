"""What docs/first_hour.md promises: the message of each situation, word for word."""

import re
from pathlib import Path

import trellis

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "first_hour.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^### (\d+)([a-z]?) .*?^```text\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
MESSAGES = {number + letter: text.rstrip() for number, letter, text in BLOCK.findall(PAGE)}
TESTS = re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE)
ROWS = sorted({int(row) for row in re.findall(r"^\| (\d+) \|", PAGE, flags=re.MULTILINE)})


def promised(situation: str) -> str:
    """The message that the page shows for a situation, such as "5" or "24b"; VERSION stands for this version."""
    return MESSAGES[situation].replace("VERSION", trellis.__version__)
