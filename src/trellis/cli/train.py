"""`trellis sft|reward|dpo|kto|orpo|cpo|ppo|grpo|rloo`: from flags to a trainer, and through its training."""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from .arguments import (
    DatasetMixtureConfig,
    ModelConfig,
    ScriptArguments,
    get_dataset,
    get_peft_config,
)
from .launch import HELP, requested
from .online import OnlineScriptArguments, PPOScriptArguments, group_trainer, loaded, ppo_trainer
from .parser import TrellisParser, config_path
from .recipe import read_recipe
from .replay import note_command

_COMMON = ["model_name_or_path", "dataset_name", "output_dir", "learning_rate", "num_train_epochs"]
_SIZES = [
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_length",
    "eval_strategy",
    "use_peft",
]
_ONLINE = [
    "model_name_or_path",
    "reward_funcs",
    "dataset_name",
    "output_dir",
    "learning_rate",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "use_peft",
]
ESSENTIALS = {
    "sft": [*_COMMON, *_SIZES, "packing", "completion_only_loss"],
    "reward": [*_COMMON, *_SIZES, "center_rewards_coefficient", "save_steps"],
    "dpo": [*_COMMON, *_SIZES, "loss_type", "beta", "precompute_ref_log_probs", "max_prompt_length"],
    "kto": [*_COMMON, *_SIZES, "loss_type", "beta", "desirable_weight", "undesirable_weight"],
    "orpo": [*_COMMON, *_SIZES, "beta", "max_prompt_length"],
    "cpo": [*_COMMON, *_SIZES, "loss_type", "beta", "cpo_alpha", "simpo_gamma", "alpha"],
    "grpo": [*_ONLINE, "num_generations", "max_completion_length", "beta", "loss_type", "scale_rewards"],
    "rloo": [*_ONLINE, "num_generations", "max_completion_length", "beta", "num_iterations"],
    "ppo": [
        "sft_model_path",
        "reward_model_path",
        "reward_funcs",
        "dataset_name",
        "output_dir",
        "learning_rate",
        "total_episodes",
        "per_device_train_batch_size",
        "num_mini_batches",
        "kl_coef",
        "response_length",
        "stop_token",
    ],
}
ONLINE = {"ppo": PPOScriptArguments, "grpo": OnlineScriptArguments, "rloo": OnlineScriptArguments}


def _model_name(model: ModelConfig) -> str:
    if not model.model_name_or_path:
        raise ValueError("no model: give --model_name_or_path DIRECTORY or a hub name")
    return model.model_name_or_path


def _splits(script: ScriptArguments, mixture: DatasetMixtureConfig, args: Any) -> dict[str, Any]:
    """train_dataset and, where evaluation is on, eval_dataset."""
    found = get_dataset(mixture if mixture.datasets else script)
    train, test = (
        ("train", "test") if mixture.datasets else (script.dataset_train_split, script.dataset_test_split)
    )
    evaluate = str(getattr(args.eval_strategy, "value", args.eval_strategy)) != "no"
    if evaluate and test not in found:
        raise ValueError(
            f"eval_strategy is on, but there is no split {test!r}, only {', '.join(found)}; choose with "
            "--dataset_test_split, or --test_split_size for a mixture, or --eval_strategy no"
        )
    return {"train_dataset": found[train], "eval_dataset": found[test] if evaluate else None}


def _public(verb: str, part: str) -> Any:
    """The Trainer or Config of a verb."""
    package = importlib.import_module("..", __package__)
    return getattr(package, f"{'Reward' if verb == 'reward' else verb.upper()}{part}")


def _fine_tuner(verb: str, script: Any, args: Any, model: Any, mixture: Any) -> Any:
    """The trainer of a verb that learns from data alone."""
    name = _model_name(model)
    args.model_init_kwargs = {**model.init_kwargs(), **(args.model_init_kwargs or {})}
    if verb == "reward" and model.use_peft:
        model.lora_task_type = "SEQ_CLS"
    return _public(verb, "Trainer")(
        name, args=args, peft_config=get_peft_config(model), **_splits(script, mixture, args)
    )


def _online(verb: str, script: Any, args: Any, model: Any, mixture: Any, more: OnlineScriptArguments) -> Any:
    """The trainer of a verb that learns from what it samples."""
    trainer = _public(verb, "Trainer")
    functions: Any = loaded(more.reward_funcs)  # what is missing is said before data is read
    more.reward_funcs = functions
    if verb == "ppo":
        return ppo_trainer(trainer, args, model, more, _splits(script, mixture, args))
    return group_trainer(trainer, _model_name(model), args, model, more, _splits(script, mixture, args))


def parser_of(verb: str) -> TrellisParser:
    """The parser of a verb."""
    kinds = [ScriptArguments, _public(verb, "Config"), ModelConfig, DatasetMixtureConfig]
    if verb in ONLINE:
        kinds.append(ONLINE[verb])
    return TrellisParser(
        kinds,
        essentials=ESSENTIALS[verb],
        prog=f"trellis {verb}",
        verb=verb,
        verbs=tuple(ESSENTIALS),
        epilog=HELP,
    )


def parse(verb: str, argv: Sequence[str]) -> tuple[TrellisParser, tuple[Any, ...]]:
    """The parser of a verb and what it read."""
    parser = parser_of(verb)
    return parser, parser.parse_args_and_config(requested(argv)[1])


def finish(trainer: Any, args: Any) -> None:
    """Train (or go on from a checkpoint), save, and push where asked."""
    resume = args.resume_from_checkpoint
    trainer.train(resume_from_checkpoint=True if str(resume).lower() == "true" else resume)
    trainer.save_model()
    if args.push_to_hub:
        trainer.push_to_hub()
    if args.process_index == 0:
        print(f"trellis: saved in {args.output_dir}", file=sys.stderr)
        print(f"next: trellis report {shlex.quote(args.output_dir)}", file=sys.stderr)


def main(verb: str, argv: Sequence[str]) -> int:
    """Train with the flags in `argv`; 2 for flags, data or models that do not fit."""
    parser, parsed = parse(verb, argv)
    try:
        trainer = (_online if verb in ONLINE else _fine_tuner)(verb, *parsed)
    except (ValueError, TypeError, ImportError, ConnectionError, TimeoutError) as error:
        parser.error(str(error))
    path = config_path(argv)
    note_command(trainer, verb, argv, read_recipe(path) if path else None)
    finish(trainer, parsed[1])
    return 0
