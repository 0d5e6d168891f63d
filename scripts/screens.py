"""Goes through the tour on the data that ships with the package and keeps what is seen of it: `python -m scripts.screens`.

Writes docs/tour.md and docs/screens/: every command is the one that the command before it said to type next.
"""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
from contextlib import chdir
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

from trellis.demo import data as demo_data
from trellis.demo.stages import train_reward, train_sft

from .chromium import opened

DOCS = Path(__file__).resolve().parent.parent / "docs"
SCREENS = DOCS / "screens"
WIDTH = 110
FIRST = "trellis advise demo:prompts --model sft --reward reward --out recipe.yaml"
SHORT = (
    " --total_episodes 3072 --logging_steps 4 --learning_rate 3e-4 --per_device_train_batch_size 64"
    " --gradient_accumulation_steps 1"
)
"""What a tour's training is given beside its recipe, so that it takes a minute on two cores and has something to show."""
NEXT = re.compile(r"^next: (?:open \S+, and )?(trellis .*)$", re.MULTILINE)


def typed(command: str) -> str:
    """What a terminal shows of a command, escape sequences included. Raises RuntimeError where it fails."""
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "trellis.cli", *shlex.split(command)[1:]]
    more = {"TERM": "xterm-256color", "COLUMNS": str(WIDTH), "LINES": "60"}
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, **more})
    os.close(theirs)
    shown = bytearray()
    while True:
        try:
            got = os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        shown += got
    os.close(ours)
    text = shown.decode(errors="replace").replace("\r\n", "\n")
    if process.wait():
        raise RuntimeError(f"{command} ended with {process.returncode}:\n{text}")
    return text


def settled(shown: str) -> str:
    """What is left on the terminal: of what was drawn over, the last."""
    begun, *drawn = re.split(r"(?:\r?\x1b\[(?:1A|2K))+", shown)
    text = (begun + "\n" if drawn else begun) + (drawn[-1] if drawn else "")
    text = re.sub(r"\x1b\[\?25[lh]", "", text)
    return "\n".join(line.split("\r")[-1] for line in text.splitlines())


def picture(shown: str, path: Path, title: str) -> None:
    """The terminal as SVG."""
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True)
    console.print(Text.from_ansi(re.sub(r"\n{3,}", "\n\n", shown)))
    path.write_text(console.export_svg(title=title), encoding="utf-8")


def tour() -> dict[str, str]:
    """{command: what the terminal showed}, each command said by the one before."""
    found: dict[str, str] = {}
    command = FIRST
    while not command.startswith("trellis chat") and command not in found:
        run = command + (SHORT if command.startswith("trellis ppo") else "")
        found[run] = settled(typed(run))
        said = NEXT.findall(Text.from_ansi(found[run]).plain)
        if not said:
            break
        command = said[-1].strip()
    return found


def page(found: dict[str, str]) -> str:
    """The recording."""
    parts = [
        "# A tour",
        "Five commands, each said by the one before, on prompts that come with the package. `sft` and `reward` are the models "
        "that `trellis demo` trains first. This page is a recording, made by `python -m scripts.screens` on two CPU cores.",
    ]
    for command, shown in found.items():
        verb = command.split()[1]
        plain = "\n".join(line.rstrip() for line in Text.from_ansi(shown).plain.splitlines()).strip()
        plain = re.sub(r"\n{3,}", "\n\n", plain)
        parts.append(f"## {verb}\n\n```text\n$ {command}\n{plain}\n```")
        parts += [f"![{what}](screens/{file})" for file, what in PICTURES.get(verb, {}).items()]
    return "\n\n".join(parts) + "\n"


PICTURES = {
    "check": {"check.svg": "the check on a terminal"},
    "ppo": {"panel.svg": "the panel at the end of the training"},
    "report": {"report.png": "the report", "report_phone.png": "the same on a phone, in the dark"},
}


def photographs(report: Path) -> None:
    """The report on a desk and on a phone."""
    with opened() as browser:
        for name, size, dark in (("report", (1200, 1500), False), ("report_phone", (390, 844), True)):
            browser.look(*size, dark=dark)
            browser.open(report)
            if dark:
                browser.ask("document.querySelector('.charts').scrollIntoView()")
            browser.picture(SCREENS / f"{name}.png")


def main() -> None:
    """All of it, in a directory that is gone afterwards."""
    SCREENS.mkdir(exist_ok=True)
    rows = demo_data.load()
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        train_sft(Path("sft"), rows, seed=0, epochs=1, quiet=True)
        train_reward(Path("reward"), Path("sft"), rows, seed=0, epochs=1, quiet=True)
        found = tour()
        for command, shown in found.items():
            verb = command.split()[1]
            if verb in ("check", "ppo"):
                picture(shown, SCREENS / ("check.svg" if verb == "check" else "panel.svg"), f"trellis {verb}")
        photographs(Path("report.html"))
        (DOCS / "tour.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
