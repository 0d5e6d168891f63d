"""Which checkpoint to resume from, and which to let go."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path

from .manifest import checkpoints, read_manifest, sequence_of, verify
from .ranks import agree, world_size
from .staging import delete, recover

log = logging.getLogger(__name__)


def newest_whole(output_dir: str | os.PathLike[str]) -> Path | None:
    """The `checkpoint-N` below `output_dir` that was written last and is whole; None when there is none.

    Damaged ones that were passed over are named, with the reason, in one warning line.
    """
    found, skipped = _first_whole(checkpoints(Path(output_dir)))
    if skipped:
        log.warning("skipped damaged checkpoints: %s", "; ".join(skipped))
    return found


def rotate(
    output_dir: str | os.PathLike[str],
    keep: int | None,
    protect: Collection[str | os.PathLike[str]] | str | None = (),
    *,
    written: str | None = None,
) -> list[Path]:
    """Delete all but the `keep` checkpoints that were written last and those in `protect` (one path or several); returns the
    deleted.

    Never the last whole one: when none of those kept is whole, the newest whole one stays too. Directories
    without a manifest are somebody else's and stay. `written` names one that was hashed just now and needs
    no second reading. None or 0 keeps all.
    """
    if not keep or keep < 0:
        return []
    ours = [p for p in checkpoints(Path(output_dir)) if sequence_of(p) != float("inf")]
    kept, rest = ours[:keep], ours[keep:]
    if not rest:
        return []
    if not any(p.name == written or not verify(p) for p in kept):
        last, _ = _first_whole(rest)
        rest = [p for p in rest if p != last]
    safe = {Path(p).resolve() for p in ([protect] if isinstance(protect, str) else protect or ())}
    gone = [p for p in rest if p.resolve() not in safe]
    for directory in gone:
        delete(directory)
    return gone


def resolve_resume(
    output_dir: str | os.PathLike[str], resume_from_checkpoint: bool | str | os.PathLike[str] | None
) -> Path | None:
    """The verified directory to resume from: the newest whole one for True, the given one for a path, None
    for False or None.

    Raises ValueError when there is none or the given one is damaged, naming the newest whole alternative.
    Every rank gets the answer of rank 0, which also tidies up after a run that died while saving.
    """
    if resume_from_checkpoint is None or resume_from_checkpoint is False:
        return None
    root = Path(output_dir)
    if resume_from_checkpoint is True:
        chosen = agree(lambda: _newest(root))
    else:
        chosen = agree(lambda: _checked(Path(resume_from_checkpoint), root))
    before = read_manifest(chosen)["world_size"]
    if before != world_size():
        log.warning(
            "%s was written by %d processes, resuming with %d: not bit-identical",
            chosen,
            before,
            world_size(),
        )
    return chosen


def _newest(root: Path) -> Path:
    recover(root)
    found = newest_whole(root)
    if found is None:
        raise ValueError(
            f"resume_from_checkpoint=True, but {root} holds no whole checkpoint-N directory; "
            "leave resume_from_checkpoint out to start at step 0, or give the path of a checkpoint"
        )
    return found


def _checked(path: Path, root: Path) -> Path:
    for parent in {path.parent, root}:
        recover(parent)
    problems = verify(path)
    if not problems:
        return path
    found, _ = _first_whole([*checkpoints(path), *checkpoints(path.parent), *checkpoints(root)])
    advice = (
        f'resume_from_checkpoint="{found}" is whole' if found else f"no whole checkpoint was found in {root}"
    )
    raise ValueError(f"cannot resume from {path}: {'; '.join(problems)}; {advice}")


def _first_whole(candidates: list[Path]) -> tuple[Path | None, list[str]]:
    skipped: list[str] = []
    for path in candidates:
        problems = verify(path)
        if not problems:
            return path, skipped
        skipped.append(f"{path} ({'; '.join(problems)})")
    return None, skipped
