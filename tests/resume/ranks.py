"""A run of a case on this rank, whole and resumed, for several processes at once."""

from __future__ import annotations

from pathlib import Path

from .cases import CASES, STEPS
from .equal import difference, disturb, history, optimizer_hash, weights_hash


def resumed(case: str, folder: str, step: int) -> dict:
    """Both runs' hashes, and where their logs differ."""
    calm = CASES[case](str(Path(folder, "calm")))
    calm.train()
    again = CASES[case](str(Path(folder, "again")))
    disturb()
    again.train(resume_from_checkpoint=str(Path(folder, "calm", f"checkpoint-{step}")))
    assert again.state.global_step == STEPS
    return {
        "calm": [weights_hash(calm), optimizer_hash(calm)],
        "again": [weights_hash(again), optimizer_hash(again)],
        "log": difference(history(again), history(calm)),
        "files": sorted(p.name for p in Path(folder, "calm", f"checkpoint-{step}").iterdir()),
    }
