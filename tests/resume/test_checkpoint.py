"""What the trainers leave on the disk, and what they make of it when it is damaged, foreign, or of several ranks."""

import json
import logging
import os
import stat

import pytest
from transformers import AutoModelForCausalLM

from tests.builders import tiny_model, tiny_tokenizer
from tests.ranks import run_ranks
from trellis import checkpoint

from .cases import CASES, KILLED, ppo, reward, sft
from .equal import weights_hash
from .ranks import resumed

SECRET = "hf_" + "thisisthesecret" * 2


def names(folder):
    return sorted(p.name for p in folder.iterdir() if p.is_dir())


@pytest.mark.parametrize("build", [sft, reward, ppo])
def test_a_checkpoint_holds_no_secret_no_arguments_pickle_and_is_readable(build, tmp_path):
    before = os.umask(0o022)
    try:
        build(str(tmp_path), hub_token=SECRET, max_steps=1).train()
    finally:
        os.umask(before)
    folder = tmp_path / "checkpoint-1"
    assert checkpoint.verify(folder) == []
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert not any(SECRET.encode() in p.read_bytes() for p in files)
    assert not (folder / "training_args.bin").exists()
    assert json.loads((folder / checkpoint.ARGS_FILE).read_text())["seed"] == 7
    assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o644}
    assert names(tmp_path) == ["checkpoint-1"]


@pytest.mark.parametrize("case", KILLED)
def test_a_damaged_newest_is_passed_over_and_the_run_ends_the_same(case, tmp_path, caplog):
    """Fault: the newest checkpoint of a run is damaged
    Then: `resume_from_checkpoint=True` takes the one before, with one warning; the run ends the same, to the bit
    """
    first = CASES[case](str(tmp_path))
    first.train()
    newest = tmp_path / "checkpoint-6"
    (newest / "optimizer.pt").unlink()
    data = bytearray((tmp_path / "checkpoint-5" / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "checkpoint-5" / "model.safetensors").write_bytes(bytes(data))
    again = CASES[case](str(tmp_path))
    with caplog.at_level(logging.WARNING, logger="trellis"):
        again.train(resume_from_checkpoint=True)
    said = [r.getMessage() for r in caplog.records if "skipped damaged" in r.getMessage()]
    assert len(said) == 1
    assert "optimizer.pt is missing" in said[0]
    assert "model.safetensors has changed" in said[0]
    assert again.resumed_from == str(tmp_path / "checkpoint-4")
    assert weights_hash(again) == weights_hash(first)
    assert checkpoint.verify(newest) == []


def test_an_explicit_damaged_checkpoint_is_an_error_before_any_step(tmp_path):
    """Fault: a damaged checkpoint is asked for by its path
    Then: ValueError before any step, with the newest whole one
    """
    sft(str(tmp_path), max_steps=2).train()
    (tmp_path / "checkpoint-2" / "scheduler.pt").unlink()
    trainer = sft(str(tmp_path), max_steps=2)
    with pytest.raises(ValueError, match="scheduler.pt is missing.*checkpoint-1.* is whole"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert trainer.state.global_step == 0


def test_nothing_to_resume_is_an_error_with_the_way_out(tmp_path):
    with pytest.raises(ValueError, match="leave resume_from_checkpoint out to start at step 0"):
        sft(str(tmp_path)).train(resume_from_checkpoint=True)


def test_the_checkpoint_of_another_model_is_refused(tmp_path):
    """Fault: the checkpoint is of another model
    Then: ValueError before any step
    """
    sft(str(tmp_path), max_steps=1).train()
    other = sft(str(tmp_path), kind="llama", max_steps=2)
    with pytest.raises(ValueError, match="of another model"):
        other.train(resume_from_checkpoint=True)


def test_old_checkpoints_go_and_the_best_stays(tmp_path):
    trainer = sft(
        str(tmp_path),
        save_total_limit=2,
        load_best_model_at_end=True,
        eval_strategy="steps",
        eval_steps=1,
        metric_for_best_model="loss",
        greater_is_better=True,  # so that the best is the first
        evaluated=True,
    )
    trainer.train()
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-5", "checkpoint-6"]
    for step in (1, 5, 6):
        state = json.loads((tmp_path / f"checkpoint-{step}" / "trainer_state.json").read_text())
        assert state["best_model_checkpoint"] == str(tmp_path / "checkpoint-1")
    best = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-1").state_dict()
    assert all(best[name].equal(weight) for name, weight in trainer.model.state_dict().items())


def test_the_final_model_loads_in_stock_transformers(tmp_path):
    trainer = sft(str(tmp_path), max_steps=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    assert type(loaded) is type(tiny_model("gpt2", tiny_tokenizer()))
    mine = trainer.model.state_dict()
    assert all(mine[name].equal(weight) for name, weight in loaded.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("case", KILLED)
def test_two_ranks_resume_to_the_bit(case, tmp_path):
    """Fault: a run of two processes is interrupted
    Then: both resume to the bit
    """
    first, second = run_ranks(resumed, 2, case=case, folder=str(tmp_path), step=3)
    for rank in (first, second):
        assert rank["again"] == rank["calm"]
        assert rank["log"] == []
    assert first["calm"] == second["calm"]
    assert {"rng_state_0.pth", "rng_state_1.pth", "trellis-0", "trellis-1"} <= set(first["files"])
