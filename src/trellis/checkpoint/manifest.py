"""What a checkpoint directory says about itself: every file's size and SHA-256, and the versions that wrote
it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from functools import cache
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

MANIFEST = "manifest.json"
FORMAT = 1
PACKAGES = (
    "trellis-rl",
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "datasets",
    "tokenizers",
    "safetensors",
)
CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def write_manifest(directory: Path, *, step: int | None, world_size: int, sequence: int) -> dict[str, Any]:
    """Hash and fsync every file below `directory`, then write its manifest; returns the manifest.

    Every file gets the mode that a plainly created one has here (safetensors leaves its own at 0600,
    unreadable to others).
    """
    files = [p for p in sorted(directory.rglob("*")) if p.is_file() and p != directory / MANIFEST]
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "sequence": sequence,
        "step": step,
        "world_size": world_size,
        "versions": versions(),
        "files": {p.relative_to(directory).as_posix(): _fingerprint(p) for p in files},
    }
    manifest["sha256"] = _own_hash(manifest)
    with open(directory / MANIFEST, "w") as out:
        json.dump(manifest, out, indent=1)
    mode = (directory / MANIFEST).stat().st_mode & 0o777
    for path in files:
        path.chmod(mode)
    for path in (*files, directory / MANIFEST, *(p for p in directory.rglob("*") if p.is_dir()), directory):
        fsync(path)
    return manifest


def read_manifest(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a checkpoint. Raises ValueError when it is missing, unreadable or of a newer format."""
    path = Path(directory) / MANIFEST
    if not path.is_file():
        raise ValueError(f"{MANIFEST} is missing")
    try:
        manifest = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{MANIFEST} is unreadable ({error})") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ValueError(f"{MANIFEST} lists no files")
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f"{MANIFEST} has format {manifest.get('format')!r}, this version reads format {FORMAT}"
        )
    if manifest.pop("sha256", None) != _own_hash(manifest):
        raise ValueError(f"{MANIFEST} has changed since it was written (SHA-256 differs)")
    return manifest


def verify(directory: str | os.PathLike[str]) -> list[str]:
    """What is wrong with a checkpoint directory, one line per problem; empty when it is whole (every file's
    hash is right)."""
    root = Path(directory)
    if not root.is_dir():
        return ["not a directory"]
    try:
        files = read_manifest(root)["files"]
    except ValueError as error:
        return [str(error)]
    found = (_problem(root, name, entry) for name, entry in files.items())
    return [problem for problem in found if problem]


def _problem(root: Path, name: str, entry: Any) -> str | None:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or not isinstance(entry, dict):
        return f"{MANIFEST} has a bad entry {name!r}"
    path = root / name
    if not path.is_file():
        return f"{name} is missing"
    size = path.stat().st_size
    if size != entry.get("size"):
        return f"{name} has {size} bytes instead of {entry.get('size')}"
    if _fingerprint(path) != entry:
        return f"{name} has changed since it was written (SHA-256 differs)"
    return None


def _fingerprint(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _own_hash(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


@cache
def versions() -> dict[str, str]:
    """Of Python and of the packages that a run's numbers depend on, as this process found them first."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def fsync(path: Path) -> None:
    """Wait until a file's or directory's content is on the disk (a directory cannot be opened for this on
    Windows)."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checkpoints(output_dir: Path) -> list[Path]:
    """The `checkpoint-N` directories, the last written first; those without a readable manifest come before
    all others."""
    found = output_dir.iterdir() if output_dir.is_dir() else ()
    return sorted((p for p in found if p.is_dir() and CHECKPOINT.fullmatch(p.name)), key=_age, reverse=True)


def step_of(name: str) -> int | None:
    """The optimizer step in a checkpoint's name, None when the name has none."""
    match = CHECKPOINT.fullmatch(name)
    return int(match[1]) if match else None


def _age(directory: Path) -> tuple[float, int]:
    # The order of writing, not the step: a fresh run in a used directory starts again at checkpoint-1.
    return sequence_of(directory), step_of(directory.name) or 0


def sequence_of(directory: Path) -> float:
    """The checkpoint's place in the order of writing; infinity when its manifest cannot be read."""
    try:
        return int(read_manifest(directory).get("sequence", 0))
    except (ValueError, TypeError):
        return float("inf")
