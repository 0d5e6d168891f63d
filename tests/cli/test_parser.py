"""Flags and recipes pass the same types and choices; mistakes end in one line with the nearest name."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import pytest
import yaml
from transformers import HfArgumentParser

from trellis.cli.arguments import DatasetMixtureConfig, ModelConfig, ScriptArguments
from trellis.cli.parser import TrellisParser, TrlParser
from trellis.trainers.config import TrellisConfig, config, option
from trellis.trainers.ppo import PPOConfig
from trellis.trainers.reward import RewardConfig
from trellis.trainers.sft import SFTConfig


@config
class Example(TrellisConfig):
    """A config."""

    renamed: ClassVar[dict[str, Any]] = {"max_seq_length": "max_length"}
    max_length: int | None = option(1024, "Tokens.")
    model_init_kwargs: dict[str, Any] | str | None = option(None, "Keyword arguments.")
    weights: list[float] | None = option(None, "Weights.")


def parser() -> TrellisParser:
    kinds = (ScriptArguments, Example, ModelConfig, DatasetMixtureConfig)
    return TrellisParser(kinds, prog="trellis x", essentials=["model_name_or_path"])


def parse(*words: str) -> tuple[Any, ...]:
    return parser().parse_args_and_config([*words, "--use_cpu"])


def recipe(folder, **content) -> list[str]:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return ["--config", str(path)]


def refusal(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        parse(*words)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_the_name_that_trl_users_know():
    assert TrlParser is TrellisParser


def test_a_recipe_passes_the_types_of_the_flags(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "learning_rate: 1e-5\nlora_r: 8\nuse_peft: true\nweights: [1, 0.5]\nreport_to: [none]\n"
        "model_init_kwargs: {dtype: float32}\nmax_length: null\nmax_steps: -1\n"
    )
    script, args, model, _ = parse("--config", str(tmp_path / "recipe.yaml"))
    assert args.learning_rate == 1e-5  # YAML 1.1 calls this a string
    assert (model.lora_r, model.use_peft) == (8, True)
    assert args.weights == [1.0, 0.5]
    assert args.model_init_kwargs == {"dtype": "float32"}
    assert args.max_length is None
    assert args.max_steps == -1
    assert script.dataset_name is None


def test_flags_win_over_the_recipe(tmp_path):
    words = recipe(tmp_path, learning_rate=0.5, max_length=7)
    _, args, _, _ = parse("--learning_rate", "0.25", *words)
    assert (args.learning_rate, args.max_length) == (0.25, 7)


def test_a_recipe_sets_the_environment(tmp_path):
    try:
        parse(*recipe(tmp_path, env={"TRELLIS_TEST_VARIABLE": 3}))
        assert os.environ["TRELLIS_TEST_VARIABLE"] == "3"
    finally:
        os.environ.pop("TRELLIS_TEST_VARIABLE", None)


def test_a_mixture_is_read_from_the_recipe_and_from_flags(tmp_path):
    entries = [{"path": "a.jsonl", "columns": ["text"]}, {"path": "b", "split": "test"}]
    mixture = parse(*recipe(tmp_path, datasets=entries, test_split_size=0.1))[-1]
    assert [(d.path, d.split, d.columns) for d in mixture.datasets] == [
        ("a.jsonl", "train", ["text"]),
        ("b", "test", None),
    ]
    assert mixture.test_split_size == 0.1
    assert [d.path for d in parse("--datasets", "a", "b")[-1].datasets] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"learning_rat": 1}, "unknown name 'learning_rat'; did you mean 'learning_rate'"),
        ({"learning_rate": "fast"}, "invalid float value: 'fast'"),
        ({"layout": "k9"}, "invalid choice: 'k9'"),
        ({"datasets": [{"pth": "x"}]}, "unknown name 'pth'; did you mean 'path'"),
        ({"save_safetensors": False}, "always written as safetensors"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path, capsys, content, says):
    assert says in refusal(capsys, *recipe(tmp_path, **content))


def test_a_recipe_that_is_no_recipe(tmp_path, capsys):
    assert "No such file" in refusal(capsys, "--config", str(tmp_path / "none.yaml"))
    (tmp_path / "list.yaml").write_text("- 1\n")
    assert "found a list" in refusal(capsys, "--config", str(tmp_path / "list.yaml"))
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    assert "broken.yaml" in refusal(capsys, "--config", str(tmp_path / "broken.yaml"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--learning_rat", "3"], "unknown flag --learning_rat; did you mean 'learning_rate'"),
        (["--learning-rat=3"], "did you mean 'learning_rate'"),
        (["--max_seq_lenght", "3"], "did you mean 'max_seq_length'"),
        (["--layout", "paded"], "invalid choice: 'paded'"),
        (["stray"], "'stray'"),
        (["--load_in_4bit", "--load_in_8bit"], "choose one"),
        (["--dtype", "int3"], "invalid choice"),
    ],
)
def test_a_wrong_flag_is_refused_in_one_line(capsys, words, says):
    error = refusal(capsys, *words)
    assert says in error
    assert len(error.strip().splitlines()) == 2


def test_old_flags_keep_working_and_say_so(capsys):
    words = "--max_seq_length 12 --no_cuda --adafactor --warmup_ratio=0.1 --per_gpu_train_batch_size 3 --torch_dtype auto"
    _, args, model, _ = parse(*words.split())
    assert (args.max_length, args.use_cpu, args.optim.value) == (12, True, "adafactor")
    assert (args.warmup_steps, args.per_device_train_batch_size, model.dtype) == (0.1, 3, "auto")
    assert "max_seq_length is now max_length=12" in capsys.readouterr().err


def test_old_names_work_in_a_recipe(tmp_path, capsys):
    assert parse(*recipe(tmp_path, max_seq_length=12))[1].max_length == 12
    assert "max_seq_length is now" in capsys.readouterr().err


def test_no_limit_can_be_said(capsys):
    assert parse("--max_length", "none")[1].max_length is None
    assert parse("--bf16", "None")[1].bf16 is False  # None: what suits the machine
    assert "invalid int value: 'nothing'" in refusal(capsys, "--max_length", "nothing")


def test_hyphens_are_accepted():
    assert parse("--max-length", "5")[1].max_length == 5


def test_one_flag_fills_a_name_that_two_dataclasses_have():
    @config
    class Other:
        """Has a field of Example's."""

        max_length: int = option(3, "Tokens.")

    made = TrellisParser((Example, Other)).parse_args_and_config(["--max_length", "9", "--use_cpu"])
    assert [m.max_length for m in made] == [9, 9]


def test_help_lists_the_essentials_first():
    text = parser().format_help()
    order = [
        text.index(part) for part in ("essentials:", "--model_name_or_path", "--max_length", "--adam_beta1")
    ]
    assert order == sorted(order)
    assert text.count("--model_name_or_path ") == 1


def test_the_method_of_stock_parsers_reads_recipes_too(tmp_path):
    made = parser().parse_args_into_dataclasses([*recipe(tmp_path, max_length=3), "--use_cpu"])
    assert made[1].max_length == 3


def test_the_stock_parser_takes_every_config_with_the_script_arguments(tmp_path):
    for kind in (SFTConfig, RewardConfig, PPOConfig):
        parser = HfArgumentParser((ScriptArguments, kind, ModelConfig))
        _, args, _ = parser.parse_args_into_dataclasses(["--output_dir", str(tmp_path)])
        assert args.output_dir == str(tmp_path)
