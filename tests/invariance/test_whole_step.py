"""Losses that look at the whole optimizer step see the same step however it is cut or spread."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.ranks import run_ranks

from .cases import ROWS, assert_same, train

LOSSES = ("aot", "aot_pair", "bco_pair")


def runs(folder: str, batch: int) -> dict[str, Any]:
    """One run per loss, ROWS pairs per optimizer step over all ranks."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    own = {"loss_weights": None, "ld_alpha": None, "use_weighting": False}
    return {
        name: train("dpo", folder, batch, ROWS // batch // world, loss_type=name, **own) for name in LOSSES
    }


def test_micro_batches(tmp_path: Any) -> None:
    want = runs(str(tmp_path), ROWS)
    for batch in (4, 1):
        found = runs(str(tmp_path), batch)
        for name in LOSSES:
            assert_same(found[name], want[name])


@pytest.mark.slow
def test_ranks(tmp_path: Any) -> None:
    want = runs(str(tmp_path), 4)
    both = run_ranks(runs, 2, folder=str(tmp_path), batch=2)
    for name in LOSSES:
        assert_same(both[0][name], want[name])
