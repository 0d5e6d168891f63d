"""SIGTERM and SIGINT: saved at the next step boundary, resumable to the bit, and said so by the exit status."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests import warm
from tests.builders import tiny_model, tiny_tokenizer
from tests.resume import cases
from tests.resume.equal import difference, disturb, history, optimizer_hash, weights_hash
from trellis import checkpoint
from trellis.trainers.signals import EXIT_RESUMABLE, Preempted

from .spoiled import Kill, spoiled
from .test_watchdog import started

REWARD = """
import os, signal
calls = []

def short(completions, **columns):
    calls.append(1)
    if len(calls) == 2 and not os.environ.get("CALM"):
        os.kill(os.getpid(), signal.SIGTERM)
    return [-len(text) / 100 for text in completions]
"""


@pytest.fixture(autouse=True)
def interruptible():
    """A process that was started in the background of a shell ignores SIGINT, and so would its tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("case", "number"), [("sft", signal.SIGINT), ("ppo", signal.SIGTERM)])
def test_stop_and_resume(case, number, tmp_path, capfd):
    """Fault: SIGTERM or SIGINT in the middle of a step
    Then: the step is finished and saved, whatever the save strategy; `train()` raises `Preempted`; resumed, the run ends as one
    that was never interrupted, to the bit
    """
    fields = {"save_strategy": "no"}
    build = {"sft": cases.sft, "ppo": cases.ppo}[case]
    calm = build(str(tmp_path / "calm"), **fields)
    calm.train()
    cut = build(str(tmp_path / "cut"), **fields)
    cut.add_callback(Kill(number, step=3))
    with pytest.raises(Preempted) as stopped:
        cut.train()
    assert stopped.value.code == EXIT_RESUMABLE == 75
    assert isinstance(stopped.value, KeyboardInterrupt)
    assert stopped.value.checkpoint == str(tmp_path / "cut" / "checkpoint-3")
    assert f"{number.name}: stopped after step 3, saved" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "handlers are ours only while training"
    again = build(str(tmp_path / "cut"), **fields)
    disturb()
    again.train(resume_from_checkpoint=True)
    assert (weights_hash(again), optimizer_hash(again)) == (weights_hash(calm), optimizer_hash(calm))
    assert difference(history(again), history(calm)) == []


def test_a_second_signal(tmp_path):
    """Fault: a second SIGTERM, half a second or more after the first
    Then: the process ends at once, as the signal ends any (status 143 in a shell)
    """
    with started(tmp_path, "signalled") as child:
        while child.stdout.readline().strip() != "asked":
            assert child.poll() is None
        child.send_signal(signal.SIGTERM)
        while "SIGTERM: saving after this step" not in child.stderr.readline():
            assert child.poll() is None
        while child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
    assert child.returncode == -signal.SIGTERM


def test_handlers_of_the_user_stay(tmp_path):
    """Fault: the user's script handles SIGTERM itself
    Then: its handler is called, and training does what it does
    """
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        trainer = spoiled(tmp_path, marked=(), max_steps=2, save_strategy="no")
        trainer.add_callback(Kill(signal.SIGTERM, step=1))
        trainer.train()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]
    assert trainer.state.global_step == 2


def test_switched_off(tmp_path):
    """Fault: SIGINT with `save_on_signal=False`
    Then: KeyboardInterrupt at once, as in any program
    """
    trainer = spoiled(tmp_path, marked=(), save_on_signal=False)
    trainer.add_callback(Kill(signal.SIGINT, step=1))
    with pytest.raises(KeyboardInterrupt) as stopped:
        trainer.train()
    assert not isinstance(stopped.value, Preempted)


@pytest.mark.slow
def test_the_exit_status_of_a_command(tmp_path):
    """Fault: SIGTERM to `trellis ppo`, inside a rollout
    Then: exit status 75; the same command with `--resume_from_checkpoint True` finishes with 0
    """
    tokenizer = tiny_tokenizer()
    for part in (tiny_model("llama", tokenizer), tokenizer):
        part.save_pretrained(tmp_path / "model")
    rows = (json.dumps({"prompt": text}) for text in cases.sentences(12, seed=3))
    (tmp_path / "prompts.jsonl").write_text("\n".join(rows))
    (tmp_path / "short.py").write_text(REWARD)
    flags = {
        "sft_model_path": tmp_path / "model",
        "dataset_name": tmp_path / "prompts.jsonl",
        "reward_funcs": f"{tmp_path / 'short.py'}:short",
        "output_dir": tmp_path / "run",
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "response_length": 4,
        "num_ppo_epochs": 1,
        "num_sample_generations": 0,
        "use_cpu": True,
    }
    command = [sys.executable, "-m", "trellis.cli", "ppo"]
    command += [str(part) for name, value in flags.items() for part in (f"--{name}", value)]
    cut = subprocess.run(command, capture_output=True, text=True, check=False)
    assert cut.returncode == 75, cut.stderr
    assert "resume_from_checkpoint=True goes on" in cut.stderr
    assert checkpoint.newest_whole(tmp_path / "run").name == "checkpoint-2"
    calm = {**os.environ, "CALM": "1"}
    done = warm.run(*command[1:], "--resume_from_checkpoint", "True", env=calm)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.safetensors").is_file()
