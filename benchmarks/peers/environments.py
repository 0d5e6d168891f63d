"""The peers' virtual environments, made on first use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from .cases import PEERS


def python_of(environment: Path) -> Path:
    """The interpreter of a virtual environment."""
    return environment / "bin" / "python"


def environment(name: str, root: Path, given: dict[str, Path]) -> Path:
    """The interpreter of peer `name`: of an environment given by path, or of `root`/`name`, made and filled where it lacks.

    The same torch as ours is installed first, then the peer. Raises ValueError for a path without an interpreter, and
    subprocess.CalledProcessError where the installation fails.
    """
    if name in given:
        if not python_of(given[name]).exists():
            raise ValueError(
                f"--env {name}={given[name]}: found no bin/python there; give a virtual environment"
            )
        return python_of(given[name])
    home = root / name
    ready = home / ".ready"
    if not ready.exists():
        print(f"making {home} ({', '.join(PEERS[name])}): once, some minutes", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        install: list[str | Path] = [python_of(home), "-I", "-m", "pip", "install", "-q"]
        subprocess.run([*install, f"torch=={torch.__version__.split('+')[0]}"], check=True)
        subprocess.run([*install, *PEERS[name]], check=True)
        ready.touch()
    return python_of(home)
