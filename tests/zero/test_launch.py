"""The documented commands: the script under `accelerate launch` with a preset, and the command line's own launcher."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import trellis
from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer
from tests.ranks import ROOT, environment

WORDS = "the battery lasts all day and the picture is very good it is easy to use".split()
PRESETS = Path(trellis.__file__).parent / "accelerate_configs"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """policy/, reward/ and prompts/ for PPO."""
    home, tokenizer = tmp_path_factory.mktemp("launch"), tiny_tokenizer()
    for name, model in (("policy", tiny_model()), ("reward", tiny_classifier(seed=1))):
        model.save_pretrained(home / name)
        tokenizer.save_pretrained(home / name)
    (home / "prompts").mkdir()
    for split, count in (("train", 24), ("validation", 4)):
        rows = [json.dumps({"prompt": " ".join(WORDS[i % 7 : i % 7 + 2])}) for i in range(count)]
        (home / "prompts" / f"{split}.jsonl").write_text("\n".join(rows))
    return home


def python(*words: object) -> None:
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def flags(home: Path, out: Path) -> list[object]:
    numbers = """--per_device_train_batch_size 4 --gradient_accumulation_steps 1 --num_mini_batches 1 --num_ppo_epochs 1
    --total_episodes 32 --response_length 6 --num_sample_generations 0 --learning_rate 3e-3 --save_steps 2"""
    named = ["--model_name_or_path", home / "policy", "--reward_model_path", home / "reward"]
    return [*named, "--dataset_name", home / "prompts", "--output_dir", out, *numbers.split()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def test_the_documented_command_trains_saves_and_is_resumed(home, tmp_path):
    launch = ["-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", 2, "--config_file"]
    launch += [PRESETS / "zero2.yaml", ROOT / "examples" / "scripts" / "ppo" / "ppo_tldr.py"]
    more = ["--sft_model_path", home / "policy", "--dataset_test_split", "validation"]
    python(*launch, *flags(home, tmp_path), *more)
    trained = weights(tmp_path)
    assert any(not torch.equal(x, trained[name]) for name, x in weights(home / "policy").items())
    saved = tmp_path / "checkpoint-2"
    python(*launch, *flags(home, tmp_path / "again"), *more, "--resume_from_checkpoint", saved)
    for name, weight in weights(tmp_path / "again").items():
        assert torch.equal(weight, trained[name]), name


def test_the_command_line_with_zero3(home, tmp_path):
    python("-m", "trellis.cli", "ppo", "--nproc", 2, "--accelerate", "zero3", *flags(home, tmp_path))
    assert weights(tmp_path).keys() == weights(home / "policy").keys()
    assert (tmp_path / "critic" / "value_head.safetensors").is_file()
