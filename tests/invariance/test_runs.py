"""Whole runs, computed in different ways: the same weights, the same log."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from .cases import CASES, ROWS, assert_same, train


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run of a trainer in two micro-batches per step, which several tests compare with; made once."""
    return cache(lambda name, peft: train(name, str(tmp_path_factory.mktemp(name)), ROWS // 2, 2, peft=peft))


@pytest.mark.parametrize("peft", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", CASES)
def test_the_cut_into_micro_batches_changes_nothing(
    name: str, peft: bool, halved: Any, tmp_path: Any
) -> None:
    for batch in (ROWS, 2, 1):
        assert_same(train(name, str(tmp_path), batch, ROWS // batch, peft=peft), halved(name, peft))


@pytest.mark.parametrize("name", CASES)
def test_the_layout_changes_nothing(name: str, tmp_path: Any) -> None:
    want = train(name, str(tmp_path), ROWS, 1, layout="packed")
    assert_same(train(name, str(tmp_path), 2, 4, layout="padded"), want)


@pytest.mark.parametrize("name", CASES)
def test_recomputed_activations_change_nothing(name: str, halved: Any, tmp_path: Any) -> None:
    assert_same(train(name, str(tmp_path), 4, 2, gradient_checkpointing=True), halved(name, False))


def test_the_chunk_of_a_rollout_changes_nothing(halved: Any, tmp_path: Any) -> None:
    for rows in (1, 3, 8):
        found = train("ppo", str(tmp_path), 4, 2, local_rollout_forward_batch_size=rows)
        assert_same(found, halved("ppo", False))


def test_a_critic_of_its_own_is_no_exception(tmp_path: Any) -> None:
    critic = {"critic": True, "value_learning_rate": 2e-3}
    want = train("ppo", str(tmp_path), ROWS, 1, **critic)
    assert_same(
        train("ppo", str(tmp_path), 2, 4, layout="padded", gradient_checkpointing=True, **critic), want
    )
