"""The launcher that the multi-process tests stand on."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from tests.ranks import run_ranks, torchrun


def share(offset: float) -> dict[str, Any]:
    """This rank's number, and the sum of both ranks'."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    total = torch.tensor(offset + rank)
    torch.distributed.all_reduce(total)
    return {"rank": rank, "total": total, "threads": torch.get_num_threads()}


def fail_on_one() -> None:
    """Rank 1 fails, and rank 0 would wait for it."""
    if os.environ["RANK"] == "1":
        raise ValueError("planted on rank 1")
    torch.distributed.init_process_group("gloo")


@pytest.mark.parametrize("launch", [run_ranks, torchrun])
def test_each_rank_answers_in_order(launch):
    found = launch(share, 2, offset=10.0)
    assert [answer["rank"] for answer in found] == [0, 1]
    assert [float(answer["total"]) for answer in found] == [21.0, 21.0]
    assert {answer["threads"] for answer in found} == {1}


def test_a_failure_on_any_rank_is_seen():
    with pytest.raises(AssertionError, match="planted on rank 1"):
        run_ranks(fail_on_one, 2)
