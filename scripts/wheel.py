"""Builds the wheel, installs it into a fresh environment, and trains with it from elsewhere: `python -m scripts.wheel TORCH…`.

TORCH… is how pip gets torch there first. Everything lies in a temporary directory, but the wheel, which stays in dist/.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "trellis"
COMMANDS = (
    "trellis --version",
    "trellis env",
    "trellis check demo:pairs --method reward",
    "trellis demo --updates 1",
    "trellis sft --model_name_or_path trellis-demo/sft --dataset_name demo:texts --output_dir more --max_steps 1",
)
"""What somebody types who has just installed the package."""


def run(*words: str | Path, folder: Path) -> str:
    """The output of a command. Raises RuntimeError with the end of it where the command fails."""
    print("$", *words, file=sys.stderr)
    done = subprocess.run(
        words, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        end = "\n".join(done.stdout.splitlines()[-20:])
        raise RuntimeError(f"{' '.join(map(str, words))} ended with {done.returncode}:\n{end}")
    return done.stdout


def built(folder: Path) -> Path:
    """The wheel. Raises ValueError where it lacks a file of the package."""
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT, folder=folder)
    wheel = next(folder.glob("trellis_rl-*.whl"))
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        str(path.relative_to(PACKAGE.parent))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    if wanted - inside:
        raise ValueError(
            f"{wheel.name} lacks {sorted(wanted - inside)}; name them in pyproject.toml's package-data"
        )
    return wheel


def main(torch: list[str]) -> None:
    """Raises RuntimeError for the first command that fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = built(folder)
        home = folder / "environment"
        run(sys.executable, "-m", "venv", home, folder=folder)
        pip = (home / "bin" / "python", "-m", "pip", "install", "-q")
        run(*pip, *torch, folder=folder)
        run(*pip, wheel, folder=folder)
        for command in COMMANDS:
            program, *words = command.split()
            shown = run(home / "bin" / program, *words, folder=folder)
            print("\n".join(shown.splitlines()[-2:]))
        where = run(home / "bin" / "python", "-c", "import trellis; print(trellis.__file__)", folder=folder)
        if not where.startswith(str(home)):
            raise RuntimeError(f"trellis came from {where.strip()}, not from the wheel")
        (ROOT / "dist").mkdir(exist_ok=True)
        wheel.rename(ROOT / "dist" / wheel.name)
    print(f"dist/{wheel.name} installs and trains")


if __name__ == "__main__":
    main(sys.argv[1:])
