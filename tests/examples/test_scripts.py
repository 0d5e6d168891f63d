"""The example scripts and the verbs train and save with the documented flags, on local paths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests import warm
from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer
from trellis.cli import main
from trellis.monitor import read_history

ROOT = Path(__file__).resolve().parents[2]
WORDS = "the battery lasts all day and the picture is very good it is easy to use".split()


def rows(path: Path, make, count: int = 40) -> str:
    lines = [json.dumps(make(" ".join(WORDS[i % 7 : i % 7 + 2]), i)) for i in range(count)]
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with tiny models and data: policy/, reward/, texts.jsonl, pairs.jsonl, prompts/descriptiveness.jsonl."""
    home = tmp_path_factory.mktemp("examples")
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    for name, model in (
        ("policy", tiny_model("llama", tokenizer)),
        ("reward", tiny_classifier("llama", tokenizer)),
    ):
        model.save_pretrained(home / name)
        tokenizer.save_pretrained(home / name)
    rows(home / "texts.jsonl", lambda text, i: {"text": f"{text} {i}"})
    rows(home / "pairs.jsonl", lambda text, i: {"chosen": f"{text} good {i}", "rejected": f"{text} bad"})
    rows(home / "sums.jsonl", lambda text, i: {"question": f"{i} + 1 =", "answer": f"#### {i + 1}"})
    (home / "prompts").mkdir()
    rows(home / "prompts" / "descriptiveness.jsonl", lambda text, i: {"prompt": f"{text} {i}"})
    rows(home / "prompts" / "validation.jsonl", lambda text, i: {"prompt": f"{text} {i}"}, 4)
    return home


def run_script(script: str, *words: str) -> None:
    done = warm.run(ROOT / "examples" / "scripts" / script, *words, "--use_cpu")
    assert done.returncode == 0, done.stderr[-3000:]


def policy_flags(home: Path) -> list[str]:
    policy, reward = str(home / "policy"), str(home / "reward")
    return ["--model_name_or_path", policy, "--sft_model_path", policy, "--reward_model_path", reward]


def check_policy(folder: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token_id in torch.tensor(model.generation_config.eos_token_id).flatten().tolist()
    ids = tokenizer("the battery", return_tensors="pt")
    assert model.generate(**ids, max_new_tokens=3).shape[1] > ids["input_ids"].shape[1]


def test_ppo_with_the_documented_flags(home, tmp_path):
    words = """--dataset_train_split descriptiveness --learning_rate 3e-6 --num_ppo_epochs 1 --num_mini_batches 1
    --per_device_train_batch_size 8 --gradient_accumulation_steps 1 --total_episodes 16 --missing_eos_penalty 1.0
    --response_length 6 --num_sample_generations 1"""
    out = tmp_path / "minimal" / "ppo"
    run_script(
        "ppo/ppo.py",
        "--dataset_name",
        str(home / "prompts"),
        "--output_dir",
        str(out),
        *policy_flags(home),
        *words.split(),
    )
    check_policy(out)


def test_tldr_with_the_documented_flags(home, tmp_path):
    words = """--dataset_train_split descriptiveness --dataset_test_split validation --learning_rate 3e-6
    --per_device_train_batch_size 4 --gradient_accumulation_steps 2 --total_episodes 16 --response_length 6
    --local_rollout_forward_batch_size 4 --missing_eos_penalty 1.0 --stop_token eos"""
    out = tmp_path / "minimal" / "ppo_tldr"
    run_script(
        "ppo/ppo_tldr.py",
        "--dataset_name",
        str(home / "prompts"),
        "--output_dir",
        str(out),
        *policy_flags(home),
        *words.split(),
    )
    check_policy(out)


@pytest.mark.parametrize(
    ("script", "model", "data"),
    [
        ("sft.py", "policy", "texts.jsonl"),
        ("reward_modeling.py", "reward", "pairs.jsonl"),
        ("dpo.py", "policy", "pairs.jsonl"),
        ("cpo.py", "policy", "pairs.jsonl"),
        ("orpo.py", "policy", "pairs.jsonl"),
        ("kto.py", "policy", "pairs.jsonl"),
    ],
)
def test_fine_tuning_scripts(home, tmp_path, script, model, data):
    words = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--output_dir", str(tmp_path / "out")]
    run_script(script, "--model_name_or_path", str(home / model), "--dataset_name", str(home / data), *words)
    assert (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_group_scripts_with_their_recipes(home, tmp_path, method):
    words = ["--config", str(ROOT / "examples" / "recipes" / f"{method}.yaml"), "--report_to", "none"]
    words += ["--dataset_name", str(home / "sums.jsonl"), "--model_name_or_path", str(home / "policy")]
    words += ["--gradient_accumulation_steps", "1", "--max_completion_length", "5", "--max_steps", "1"]
    run_script(f"{method}.py", *words, "--output_dir", str(tmp_path / "out"))
    check_policy(tmp_path / "out")


def test_sft_verb_with_a_mixture_evaluation_and_an_adapter(home, tmp_path):
    recipe = tmp_path / "sft.yaml"
    content = {
        "model_name_or_path": str(home / "policy"),
        "datasets": [{"path": str(home / "texts.jsonl"), "columns": ["text"]}],
        "test_split_size": 0.2,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "max_steps": 2,
        "logging_steps": 1,
        "use_peft": True,
        "lora_r": 2,
        "output_dir": str(tmp_path / "out"),
        "use_cpu": True,
    }
    recipe.write_text(yaml.safe_dump(content))
    assert main(["sft", "--config", str(recipe)]) == 0
    history = read_history(tmp_path / "out")
    assert any("eval_loss" in record for record in history)
    assert (tmp_path / "out" / "adapter_config.json").exists()


def test_reward_verb(home, tmp_path):
    words = ["--model_name_or_path", str(home / "policy"), "--dataset_name", str(home / "pairs.jsonl")]
    assert (
        main(["reward", *words, "--max_steps", "2", "--use_cpu", "--output_dir", str(tmp_path / "out")]) == 0
    )
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config.num_labels == 1


@pytest.mark.parametrize("verb", ["cpo", "orpo", "kto"])
def test_preference_verbs_with_their_recipes(home, tmp_path, verb):
    recipe = str(ROOT / "examples" / "recipes" / f"{verb}.yaml")
    words = ["--model_name_or_path", str(home / "policy"), "--dataset_name", str(home / "pairs.jsonl")]
    words += [
        "--max_steps",
        "1",
        "--gradient_accumulation_steps",
        "1",
        "--use_cpu",
        "--output_dir",
        str(tmp_path / "out"),
    ]
    assert main([verb, "--config", recipe, *words]) == 0
    check_policy(tmp_path / "out")


def test_ppo_verb_with_a_recipe_and_a_function(home, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def short(completions):\n    return [-float(len(c)) for c in completions]\n"
    )
    recipe = tmp_path / "ppo.yaml"
    content = {
        "sft_model_path": str(home / "policy"),
        "reward_funcs": [f"{tmp_path / 'mine.py'}:short"],
        "dataset_name": str(home / "prompts"),
        "dataset_train_split": "descriptiveness",
        "total_episodes": 16,
        "per_device_train_batch_size": 8,
        "response_length": 5,
        "learning_rate": "1e-4",
        "num_sample_generations": 0,
        "logging_steps": 1,
        "use_cpu": True,
        "output_dir": str(tmp_path / "out"),
    }
    recipe.write_text(yaml.safe_dump(content))
    assert main(["ppo", "--config", str(recipe)]) == 0
    check_policy(tmp_path / "out")
    assert any("objective/kl" in record for record in read_history(tmp_path / "out"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sft", "--dataset_name", "x.jsonl"], "--model_name_or_path"),
        (["sft", "--model_name_or_path", "POLICY"], "--dataset_name"),
        (
            ["ppo", "--sft_model_path", "POLICY", "--reward_funcs", "none.py:f", "--dataset_name", "x"],
            "FILE.py:NAME",
        ),
        (["reward", "--model_name_or_path", "POLICY", "--dataset_name", "TEXTS"], "chosen"),
    ],
)
def test_what_is_missing_is_one_message(home, capsys, words, says):
    names = {"POLICY": str(home / "policy"), "TEXTS": str(home / "texts.jsonl")}
    with pytest.raises(SystemExit) as stop:
        main([names.get(word, word) for word in words] + ["--use_cpu"])
    assert stop.value.code == 2
    assert says in capsys.readouterr().err


def test_scripts_fit_a_screen():
    longer = {"grpo_agent.py": 80}  # two tools and a game are in it
    for script in (ROOT / "examples" / "scripts").rglob("*.py"):
        assert len(script.read_text().splitlines()) <= longer.get(script.name, 60), script
