"""Under DeepSpeed ZeRO-2 and ZeRO-3, on two processes, training is what it is in one process without it."""

from __future__ import annotations

import pytest
import torch

from tests.invariance import cases
from tests.ranks import run_ranks

from . import runs

TOLERANCE = 5e-6


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Each trainer's run in this process."""
    before, cases.PRECISION = cases.PRECISION, torch.float32
    folder = tmp_path_factory.mktemp("plain")
    yield {name: runs.train(name, folder / name, 4, 2) for name in cases.CASES}
    cases.PRECISION = before


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """The same runs on two ranks, under both stages."""
    return run_ranks(runs.nine, folder=str(tmp_path_factory.mktemp("cut")), stages=[2, 3])


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("name", list(cases.CASES))
def test_a_run_is_what_it_is_without_deepspeed(plain, cut, name, stage):
    for rank in cut:
        same(rank[f"{name} {stage}"], plain[name])


def same(found, expected):
    """Weights, every logged number and sampled tokens."""
    assert found["weights"].keys() == expected["weights"].keys()
    for name, weight in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], weight, atol=TOLERANCE, rtol=0, msg=name)
    assert len(found["log"]) == len(expected["log"])
    for entry, other in zip(found["log"], expected["log"], strict=True):
        assert entry == pytest.approx(other, rel=TOLERANCE, abs=TOLERANCE)
    if expected["tokens"] is not None:
        assert torch.equal(found["tokens"], expected["tokens"])
