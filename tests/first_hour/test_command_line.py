"""Row 31: the command line, from nothing."""

import json
import subprocess
import sys

import pytest

from tests import warm

from .page import promised
from .parts import METHODS, ONE_STEP, judge, policy


def trellis(*words: str) -> subprocess.CompletedProcess:
    return warm.run("-m", "trellis.cli", *words)


def test_row_31_help_names_every_trainer_and_starts_at_once():
    done = subprocess.run([sys.executable, "-m", "trellis.cli", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert {name.lower() for name in METHODS} | {"demo"} <= set(done.stdout.split())


@pytest.mark.parametrize(
    ("situation", "words"),
    [
        ("31", ["pop"]),
        ("31b", ["ppo", "--learnin_rate", "1e-5"]),
        ("31c", ["sft", "--model_name_or_path", "model"]),
        ("31d", ["sft", "--model_name_or_path", "./model", "--dataset_name", "rows.jsonl"]),
        ("31e", ["ppo", "--config", "recipe.yaml"]),
        ("31f", ["sft", "--model_name_or_path", "./model", "--dataset_name", "row.jsonl"]),
    ],
)
def test_row_31_a_wrong_command_line_is_one_message(here, situation, words):
    (here / "rows.jsonl").write_text(json.dumps({"text": "good"}) + "\n")
    (here / "recipe.yaml").write_text("kl_coeff: 0.1\n")
    done = trellis(*words)
    assert done.returncode == 2
    assert promised(situation) in done.stderr
    assert "Traceback" not in done.stderr


def test_row_31_the_ppo_verb_trains(tokenizer, here):
    policy(tokenizer, here / "policy")
    judge(tokenizer, here / "judge")
    (here / "prompts.jsonl").write_text("".join(json.dumps({"prompt": t}) + "\n" for t in ("good", "bad")))
    flags = [f"--{name}={value}" for name, value in ONE_STEP.items()]
    done = trellis(
        *("ppo", "--sft_model_path", "policy", "--reward_model_path", "judge"),
        *("--dataset_name", "prompts.jsonl", "--output_dir", "out", "--per_device_train_batch_size", "2"),
        *("--response_length", "4", *flags),
    )
    assert done.returncode == 0, done.stderr
    assert (here / "out" / "model.safetensors").exists()
