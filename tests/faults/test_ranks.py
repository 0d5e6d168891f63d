"""Faults of one of two processes, which both must answer alike."""

import signal

import pytest

from tests.ranks import run_ranks
from tests.resume.equal import weights_hash
from trellis.trainers.signals import Preempted

from .spoiled import Kill, spoiled

BOTH = {"per_device_train_batch_size": 1, "ddp_backend": "gloo"}


def bad_row(folder):
    """The bad row lies on one rank: left out, then stopped at."""
    skipping = spoiled(folder + "-skip", on_bad_step="skip", save_strategy="no", **BOTH)
    skipping.train()
    said = ""
    try:
        spoiled(folder + "-stop", save_strategy="no", **BOTH).train()
    except FloatingPointError as error:
        said = str(error)
    return {"weights": weights_hash(skipping), "count": skipping.bad_steps.count, "said": said}


def signalled(folder):
    """Only rank 1 is told to stop."""
    changes = {"marked": (), "save_strategy": "no", **BOTH}
    calm = spoiled(folder + "-calm", **changes)
    calm.train()
    cut = spoiled(folder, **changes)
    cut.add_callback(Kill(signal.SIGTERM, step=2, rank=1))
    stopped = None
    try:
        cut.train()
    except Preempted as told:
        stopped = told.checkpoint
    again = spoiled(folder, **changes)
    again.train(resume_from_checkpoint=True)
    return {"stopped": stopped, "calm": weights_hash(calm), "again": weights_hash(again)}


def all_of_them(folder):
    """Everything in one launch."""
    return {"bad": bad_row(folder), "signalled": signalled(folder)}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """(what each of two ranks found, where it ran)."""
    folder = str(tmp_path_factory.mktemp("ranks") / "run")
    return run_ranks(all_of_them, folder=folder), folder


@pytest.mark.slow
def test_a_bad_row(ranks):
    """Fault: a row that is not finite lies on one of two processes
    Then: both leave the step out, or both stop; the process that has the row says so
    """
    found = [rank["bad"] for rank in ranks[0]]
    assert found[0]["weights"] == found[1]["weights"]
    assert [rank["count"] for rank in found] == [1, 1]
    said = " ".join(rank["said"] for rank in found)
    assert "was bad on another process" in said
    assert "row 0 of micro-batch" in said


@pytest.mark.slow
def test_a_signal(ranks):
    """Fault: SIGTERM to one of two processes
    Then: both stop after the same step, with one checkpoint, and resume to the bit
    """
    found, folder = [rank["signalled"] for rank in ranks[0]], ranks[1]
    assert [rank["stopped"] for rank in found] == [f"{folder}/checkpoint-2"] * 2
    assert len({rank[which] for rank in found for which in ("calm", "again")}) == 1
