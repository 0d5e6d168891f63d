"""Saving as one step: a checkpoint is written aside, hashed, flushed to the disk and renamed into place, or
it never was."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .manifest import checkpoints, fsync, sequence_of, step_of, verify, write_manifest
from .ranks import agree, failures, rank
from .ranks import world_size as current_world_size

ASIDE = re.compile(r"\.(staging|replaced|deleted)-(.+)-(\d+)")


@contextmanager
def staged(
    output_dir: str | os.PathLike[str], name: str, *, step: int | None = None, world_size: int | None = None
) -> Iterator[Path]:
    """Yields `output_dir/.staging-<name>-<pid>/<name>`, an empty directory that becomes `output_dir/<name>`
    when the block ends.

    On an exception nothing of it remains, and an earlier checkpoint of that name is still there. Every rank
    enters the block together and writes into the same directory; a failure of one rank is raised on all
    (RuntimeError on those that had none). The manifest says `step` (of the name's number where None) and
    `world_size`.
    """
    root = Path(output_dir)
    aside = agree(lambda: _open(root, name))
    fresh = aside / name
    fresh.mkdir(parents=True, exist_ok=True)
    mine: Exception | None = None
    try:
        yield fresh
    except Exception as error:
        mine = error
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    lines = failures(mine)
    if not lines:
        agree(lambda: _commit(root, fresh, step, world_size))
        return
    if rank() == 0:
        shutil.rmtree(aside, ignore_errors=True)
    raise mine or RuntimeError("saving the checkpoint failed on " + "; ".join(lines))


def recover(output_dir: str | os.PathLike[str]) -> None:
    """Tidy up after runs that died while saving: a save that was whole is finished, a replaced checkpoint
    whose successor never came is put back, everything else that was set aside is removed. Directories of
    living processes stay."""
    root = Path(output_dir)
    found = [(m, p) for p in root.iterdir() if (m := ASIDE.fullmatch(p.name))] if root.is_dir() else []
    for kind in ("staging", "replaced", "deleted"):
        for match, path in found:
            if match[1] == kind and not _alive(int(match[3])):
                _settle(kind, path, root / match[2])


def delete(directory: Path) -> None:
    """Remove a checkpoint such that no half of it is ever visible under its name."""
    gone = directory.parent / f".deleted-{directory.name}-{os.getpid()}"
    shutil.rmtree(gone, ignore_errors=True)
    directory.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _settle(kind: str, path: Path, target: Path) -> None:
    content = path / target.name if kind == "staging" else path
    if kind != "deleted" and not target.exists() and not verify(content):
        content.rename(target)
        fsync(target.parent)
    shutil.rmtree(path, ignore_errors=True)


def _open(root: Path, name: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    recover(root)
    aside = root / f".staging-{name}-{os.getpid()}"
    (aside / name).mkdir(parents=True)
    return aside


def _commit(root: Path, fresh: Path, step: int | None, ranks: int | None) -> None:
    name = fresh.name
    target, old = root / name, root / f".replaced-{name}-{os.getpid()}"
    sequences = [s for s in map(sequence_of, checkpoints(root)) if s != float("inf")]
    sequence = 1 + int(max(sequences, default=0))
    try:
        write_manifest(
            fresh,
            step=step_of(name) if step is None else step,
            world_size=current_world_size() if ranks is None else ranks,
            sequence=sequence,
        )
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(fresh.parent, ignore_errors=True)
        raise
    fsync(root)
    fresh.parent.rmdir()
    shutil.rmtree(old, ignore_errors=True)


def _alive(pid: int) -> bool:
    if (
        pid == os.getpid()
    ):  # of an earlier process with our number (containers start counting at 1): it is dead, we are here
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
