"""Whole runs, computed in different ways: the same weights, the same log."""

from __future__ import annotations

from typing import Any

import pytest

from .cases import CASES, ROWS, assert_same, train


@pytest.mark.parametrize("peft", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", CASES)
def test_the_cut_into_micro_batches_changes_nothing(name: str, peft: bool, tmp_path: Any) -> None:
    want = train(name, str(tmp_path), ROWS, 1, peft=peft)
    for batch in (4, 2, 1):
        assert_same(train(name, str(tmp_path), batch, ROWS // batch, peft=peft), want)


@pytest.mark.parametrize("name", CASES)
def test_the_layout_changes_nothing(name: str, tmp_path: Any) -> None:
    want = train(name, str(tmp_path), ROWS, 1, layout="packed")
    assert_same(train(name, str(tmp_path), 2, 4, layout="padded"), want)


@pytest.mark.parametrize("name", CASES)
def test_recomputed_activations_change_nothing(name: str, tmp_path: Any) -> None:
    want = train(name, str(tmp_path), 4, 2)
    assert_same(train(name, str(tmp_path), 4, 2, gradient_checkpointing=True), want)


def test_the_chunk_of_a_rollout_changes_nothing(tmp_path: Any) -> None:
    want = train("ppo", str(tmp_path), 4, 2)
    for rows in (1, 3, 8):
        assert_same(train("ppo", str(tmp_path), 4, 2, local_rollout_forward_batch_size=rows), want)


def test_a_critic_of_its_own_is_no_exception(tmp_path: Any) -> None:
    critic = {"critic": True, "value_learning_rate": 2e-3}
    want = train("ppo", str(tmp_path), ROWS, 1, **critic)
    assert_same(
        train("ppo", str(tmp_path), 2, 4, layout="padded", gradient_checkpointing=True, **critic), want
    )
