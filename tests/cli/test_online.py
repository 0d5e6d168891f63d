"""One recipe, three algorithms: the verb is the only word that changes."""

from __future__ import annotations

import json

import pytest
import yaml
from transformers import AutoModelForCausalLM

from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer
from trellis.cli import main
from trellis.cli.online import OnlineScriptArguments, rewards
from trellis.cli.train import parse
from trellis.monitor import read_completions, read_history

RECIPE = """
reward_funcs: [accuracy]
learning_rate: 1e-4
per_device_train_batch_size: 8
max_steps: 2
temperature: 1.0
logging_steps: 1
save_strategy: "no"
report_to: none
use_cpu: true
disable_tqdm: true
ppo: {response_length: 6, kl_coef: 0.05, num_ppo_epochs: 1, num_sample_generations: 0}
grpo: {num_generations: 4, max_completion_length: 6, beta: 0.04, log_completions: true, num_completions_to_print: 2}
rloo: {num_generations: 4, max_completion_length: 6, beta: 0.05}
"""
LINES = [
    {"question": "Ann has 3 apples and buys 4. How many?", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"},
    {"question": "A pen costs 1,200 cents. What do two cost?", "answer": "2 * 1200 = 2400\n#### 2,400"},
] * 8


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """policy/, reward/, gsm8k.jsonl as the hub has it, and recipe.yaml."""
    home = tmp_path_factory.mktemp("online")
    tokenizer = tiny_tokenizer()
    for name, model in (("policy", tiny_model()), ("reward", tiny_classifier())):
        model.save_pretrained(home / name)
        tokenizer.save_pretrained(home / name)
    (home / "gsm8k.jsonl").write_text("\n".join(map(json.dumps, LINES)))
    paths = {"model_name_or_path": str(home / "policy"), "dataset_name": str(home / "gsm8k.jsonl")}
    (home / "recipe.yaml").write_text(yaml.safe_dump(paths) + RECIPE)
    return home


@pytest.mark.parametrize("verb", ["ppo", "grpo", "rloo"])
def test_one_recipe_trains_with_each(home, tmp_path, capsys, verb):
    assert main([verb, "--config", str(home / "recipe.yaml"), "--output_dir", str(tmp_path)]) == 0
    first, second = [r for r in read_history(tmp_path) if "loss" in r]
    assert [first["step"], second["step"]] == [1, 2]
    assert 0 <= first["rewards/accuracy_reward/mean"] <= 1
    length = "response/length" if verb == "ppo" else "completions/max_length"
    assert second[length] <= 6
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.vocab_size
    tables = read_completions(tmp_path)
    assert len(tables) == (16 if verb == "grpo" else 0)  # its block asks for them
    if tables:
        assert {"prompt", "completion", "accuracy_reward", "advantage"} <= set(tables[0])
        assert "completions, step 1" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["ppo", "rloo"])
def test_a_reward_model_and_a_function_of_a_file(home, tmp_path, verb):
    (tmp_path / "mine.py").write_text(
        "def short(completions):\n    return [-float(len(c)) for c in completions]\n"
    )
    words = [
        "--reward_model_name_or_path",
        str(home / "reward"),
        "--reward_funcs",
        f"{tmp_path / 'mine.py'}:short",
    ]
    words += ["--reward_weights", "1.0", "0.1", "--max_steps", "1", "--output_dir", str(tmp_path / "out")]
    assert main([verb, "--config", str(home / "recipe.yaml"), *words]) == 0
    record = read_history(tmp_path / "out")[0]
    names = [name for name in record if name.startswith("rewards/") and name.endswith("/mean")]
    assert names == ["rewards/reward/mean", "rewards/short/mean"]


@pytest.mark.parametrize(
    ("verb", "length"), [("ppo", "response_length"), ("grpo", "max_completion_length"), ("sft", "max_length")]
)
def test_a_block_counts_for_its_verb_and_a_flag_wins(tmp_path, verb, length):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"seed: 1\nlearning_rate: 1e-4\n{verb}: {{{length}: 7, learning_rate: 2e-4}}\nkto: {{beta: 0.3}}\n"
    )
    args = parse(verb, ["--config", str(recipe), "--output_dir", str(tmp_path)])[1][1]
    assert (getattr(args, length), args.learning_rate, args.seed) == (7, 2e-4, 1)
    args = parse(verb, ["--config", str(recipe), f"--{length}", "9", "--output_dir", str(tmp_path)])[1][1]
    assert getattr(args, length) == 9


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("grpo: 3\n", "grpo is a block for `trellis grpo`"),
        ("grp: {beta: 0.1}\n", "unknown name 'grp'; did you mean 'grpo'?"),
        ("grpo: {bta: 0.1}\n", "unknown name 'bta'"),
    ],
)
def test_a_block_that_is_none_is_one_message(tmp_path, capsys, text, says):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(SystemExit):
        parse("grpo", ["--config", str(tmp_path / "recipe.yaml")])
    assert says in capsys.readouterr().err


def test_what_scores_is_needed_and_a_near_miss_is_named(home, capsys):
    with pytest.raises(ValueError, match="--reward_funcs NAME"):
        rewards(OnlineScriptArguments())
    words = ["--model_name_or_path", str(home / "policy"), "--dataset_name", str(home / "gsm8k.jsonl")]
    with pytest.raises(SystemExit):
        main(["grpo", *words, "--reward_funcs", "acuracy", "--use_cpu"])
    assert "Did you mean 'accuracy'" in capsys.readouterr().err
