"""Two processes that share a model's weights by FSDP2 train, save and resume as one process does that has them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.invariance.cases import assert_same
from tests.ranks import run_ranks

from .runs import KEPT, RUNS, on_this_rank, resumed, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where one process writes, and where two do."""
    return tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("both")


@pytest.fixture(scope="module")
def alone(places: tuple[Path, Path]) -> dict[str, Any]:
    """Every run by one process, in float64."""
    return {key: run(key, places[0] / key) for key in RUNS}


@pytest.fixture(scope="module")
def both(alone: dict[str, Any], places: tuple[Path, Path]) -> list[dict[str, Any]]:
    """What each of two processes found."""
    return run_ranks(on_this_rank, 2, folder=str(places[1]), alone=str(places[0]))


def assert_alike(found: list[dict[str, Any]], want: dict[str, Any]) -> None:
    """Both ranks have the weights and tokens of `want`, and the first its log."""
    assert_same(found[0], want)
    assert_same({**found[1], "log": found[0]["log"]}, want)
    assert [rank["sharded"] for rank in found] == ["fsdp2", "fsdp2"]


@pytest.mark.parametrize("key", RUNS)
def test_two_shards_train_as_one_model(key: str, alone: dict[str, Any], both: list[dict[str, Any]]) -> None:
    assert_alike([rank["run"][key] for rank in both], alone[key])


@pytest.mark.parametrize("key", KEPT)
def test_a_resumed_run_ends_as_the_uninterrupted_one(key: str, both: list[dict[str, Any]]) -> None:
    for rank in both:
        again, want = rank["again"][key]["weights"], rank["run"][key]["weights"]
        assert again.keys() == want.keys()
        assert all(torch.equal(again[name], want[name]) for name in want)


@pytest.mark.parametrize("key", KEPT)
def test_one_process_goes_on_from_two(
    key: str, alone: dict[str, Any], both: list[dict[str, Any]], places: tuple[Path, Path], tmp_path: Path
) -> None:
    assert_same(resumed(key, tmp_path, places[1] / key), alone[key])


def test_two_processes_go_on_from_one(alone: dict[str, Any], both: list[dict[str, Any]]) -> None:
    assert_alike([rank["grown"][KEPT[0]] for rank in both], alone[KEPT[0]])


def test_a_checkpoint_is_a_stock_model(
    alone: dict[str, Any], both: list[dict[str, Any]], places: tuple[Path, Path]
) -> None:
    saved = AutoModelForCausalLM.from_pretrained(places[1] / "grpo" / "checkpoint-3", dtype=torch.float64)
    assert type(saved).__name__ == "GPT2LMHeadModel"
    for name, weight in alone["grpo"]["weights"].items():
        torch.testing.assert_close(saved.state_dict()[name], weight, rtol=1e-9, atol=1e-10)


def test_weights_are_whole_inside_and_as_before_outside(both: list[dict[str, Any]]) -> None:
    for rank in both:
        found = rank["bare"]
        assert "lm_head.weight" in found.pop("refused")
        assert found == {
            "said": True,
            "inner": "",
            "unchanged": True,
            "changed": True,
            "same": True,
            "outer": "fsdp2",
        }
