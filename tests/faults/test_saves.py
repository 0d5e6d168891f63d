"""Saves that fail, and checkpoints that were damaged: what was there before stays, and is found."""

import logging
import resource
import shutil

import pytest
from transformers import TrainerCallback

from tests.resume import cases
from tests.resume.equal import weights_hash
from trellis import checkpoint

from .spoiled import spoiled


class Full(TrainerCallback):
    """From the end of one step to the begin of the next no file can grow beyond a size, as on a full disk."""

    def __init__(self, step, size):
        self.step, self.size, self.before = step, size, None

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def on_step_begin(self, args, state, control, **kwargs):
        self.lift()

    def lift(self):
        if self.before is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, self.before)
            self.before = None


@pytest.mark.parametrize("size", [20_000, 150_000])
def test_full_disk_stops(size, tmp_path):
    """Fault: the disk is full while a checkpoint is written (its weights, or later its optimizer)
    Then: OSError with the reason, the room that is left and the newest whole checkpoint; nothing of the new one remains; resumed
    with room, the run ends the same
    """
    full, trainer = Full(3, size), spoiled(tmp_path, marked=())
    trainer.add_callback(full)
    try:
        with pytest.raises(
            OSError, match=r"checkpoint-3 could not be saved.*MiB are free.*checkpoint-2 is untouched"
        ):
            trainer.train()
    finally:
        full.lift()
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["checkpoint-1", "checkpoint-2"]
    assert checkpoint.verify(tmp_path / "checkpoint-2") == []
    again = spoiled(tmp_path, marked=())
    again.train(resume_from_checkpoint=True)
    calm = spoiled(tmp_path / "calm", marked=(), save_strategy="no")
    calm.train()
    assert weights_hash(again) == weights_hash(calm)


def test_full_disk_goes_on(tmp_path, caplog):
    """Fault: the same, with `on_save_error="continue"`
    Then: a warning; the run goes on, and later checkpoints are whole
    """
    full, trainer = (
        Full(3, 20_000),
        spoiled(tmp_path, marked=(), on_save_error="continue", save_total_limit=1),
    )
    trainer.add_callback(full)
    with caplog.at_level(logging.WARNING, logger="trellis"):
        trainer.train()
    assert len([r for r in caplog.records if "checkpoint-3 could not be saved" in r.message]) == 1
    assert trainer.state.global_step == 6
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-6"]
    assert checkpoint.verify(tmp_path / "checkpoint-6") == []


def truncated(path):
    path.write_bytes(path.read_bytes()[:-1])


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def missing(path):
    path.unlink()


def test_any_damage_to_any_file_of_a_run(tmp_path):
    """Fault: any file of a trainer's newest checkpoint (weights, critic, optimizer, schedule, random streams, rollout, arguments,
    tokenizer, manifest) is cut short, has one bit flipped, or is missing
    Then: it is passed over; the one before it is found, verified and untouched, and rotation keeps it
    """
    cases.ppo(str(tmp_path), critic=True, max_steps=2).train()
    good, bad = tmp_path / "checkpoint-1", tmp_path / "checkpoint-2"
    names = sorted(p.relative_to(bad).as_posix() for p in bad.rglob("*") if p.is_file())
    kinds = {
        "model.safetensors",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "trainer_state.json",
        "manifest.json",
    }
    kinds |= {
        "critic/model.safetensors",
        "trellis-0/trellis_state.safetensors",
        "trellis-0/trellis_state.json",
    }
    assert kinds < set(names)
    shutil.copytree(bad, tmp_path / "kept")
    for name in names:
        for damage in (truncated, flipped, missing):
            damage(bad / name)
            assert checkpoint.resolve_resume(tmp_path, True) == good, (name, damage.__name__)
            assert checkpoint.rotate(tmp_path, 1) == []
            (bad / name).write_bytes((tmp_path / "kept" / name).read_bytes())
    assert checkpoint.resolve_resume(tmp_path, True) == bad


def test_another_cut_into_micro_batches(tmp_path):
    """Fault: a run is resumed with another size of micro-batches for the same step
    Then: it trains on the same rows, step by step; sums differ by rounding only
    """
    spoiled(tmp_path, marked=()).train()
    whole = spoiled(tmp_path / "whole", marked=())
    whole.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    other = spoiled(
        tmp_path / "other", marked=(), per_device_train_batch_size=4, gradient_accumulation_steps=1
    )
    other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    ours, theirs = ([e["loss"] for e in t.state.log_history if "loss" in e] for t in (other, whole))
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert other.tokens_seen == whole.tokens_seen
