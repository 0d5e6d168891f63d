"""Two processes do what one does: the same weights, metrics and sampled tokens."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.ranks import run_ranks

from .cases import CASES, ROWS, assert_same, evaluate, train

VARIANTS = {"full": {}, "lora": {"peft": True}, "recomputed": {"gradient_checkpointing": True}}


def runs(names: list[str], folder: str) -> dict[str, Any]:
    """Every named trainer in every variant, ROWS rows per optimizer step over all ranks in micro-batches of 2."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    return {
        f"{name}-{variant}": train(name, folder, 2, ROWS // 2 // world, **changes)
        for name in names
        for variant, changes in VARIANTS.items()
    }


def evaluations(names: list[str], sizes: list[int], folder: str) -> dict[str, dict[str, float]]:
    """What every named trainer says of the held-out rows, for every number of rows at a time."""
    return {f"{name}-{size}": evaluate(name, folder, size) for name in names for size in sizes}


def test_two_ranks_evaluate_each_row_once(tmp_path: Any) -> None:
    asked = {"names": list(CASES), "sizes": [1, 4, 16], "folder": str(tmp_path)}
    want = evaluations(**asked)
    for found in run_ranks(evaluations, 2, **asked):
        assert found == {key: pytest.approx({**value}, rel=1e-6, abs=1e-9) for key, value in want.items()}
    assert all(
        want[f"{name}-1"] == pytest.approx(want[f"{name}-{size}"], rel=1e-6, abs=1e-9)
        for name in CASES
        for size in (4, 16)
    )


def own_rows(folder: str, **changes: Any) -> list[int]:
    """How many rows that count this rank's micro-batches have in one pass over TRAINED rows."""
    trainer = CASES["sft"].build(folder, 2, 2, max_steps=-1, num_train_epochs=1, **changes)
    take, sizes = trainer.get_batch_samples, []

    def noted(*args: Any) -> Any:
        batches, items = take(*args)
        sizes.extend(len(batch) for batch in trainer.own_rows.of(batches))
        return batches, items

    trainer.get_batch_samples = noted
    trainer.train()
    return sizes


def own_rows_both_ways(folder: str) -> dict[str, list[int]]:
    """With the rows that fill no round, and without them."""
    return {"all": own_rows(folder), "dropped": own_rows(folder, dataloader_drop_last=True)}


def test_two_ranks_take_each_row_once(tmp_path: Any) -> None:
    first, second = run_ranks(own_rows_both_ways, folder=str(tmp_path))
    assert (first["all"], second["all"]) == ([2, 2, 2, 2, 1], [2, 2, 2, 2])
    assert first["dropped"] == second["dropped"] == [2, 2, 2, 2]


def kto_whole(folder: str) -> dict[str, Any]:
    """KTO in one micro-batch per step and rank, in whose training pass the KL of the step is found; the last step of a pass over
    the data leaves the second rank without rows."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    fields = {"max_steps": -1, "num_train_epochs": 2, "dataloader_drop_last": False}
    return train("kto", folder, 4 // world, 1, **fields)


def test_two_ranks_find_one_kl(tmp_path: Any) -> None:
    want = kto_whole(str(tmp_path))
    first, second = run_ranks(kto_whole, 2, folder=str(tmp_path))
    assert_same(first, want)
    assert_same({**second, "log": first["log"]}, want)


@pytest.mark.slow
def test_two_ranks_are_one(tmp_path: Any) -> None:
    want = runs(list(CASES), str(tmp_path))
    both = run_ranks(runs, 2, names=list(CASES), folder=str(tmp_path))
    for key, value in want.items():
        assert_same(both[0][key], value)
        assert_same({**both[1][key], "log": both[0][key]["log"]}, value)
