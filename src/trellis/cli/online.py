"""`trellis ppo|grpo|rloo`: the same rewards, given in the same words, whichever algorithm learns from them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from ..trainers.config import option
from .arguments import ModelConfig, get_peft_config


@dataclass
class OnlineScriptArguments:
    """What scores completions."""

    reward_funcs: list[str] | None = option(
        None,
        "Rewards: names of ready ones (accuracy, think_format …), functions as FILE.py:NAME, package.module:NAME or "
        "package.module.NAME, or classifiers by path.",
    )
    reward_model_name_or_path: str | None = option(
        None, "A sequence classifier that scores completions, before the reward functions."
    )


@dataclass
class PPOScriptArguments(OnlineScriptArguments):
    """What scores completions, and where the critic comes from."""

    value_model_path: str | None = option(
        None, "A model to make the critic from; default: a value head on the policy."
    )
    value_use_peft: bool = option(
        False, "Train an adapter of the critic too, shaped like the policy's, instead of all its weights."
    )


def load_function(spec: str) -> Callable[..., Any]:
    """The function that `FILE.py:NAME` or `package.module:NAME` names. Raises ValueError when there is none."""
    place, _, name = spec.rpartition(":")
    try:
        if place.endswith(".py"):
            found = importlib.util.spec_from_file_location(Path(place).stem, place)
            module = importlib.util.module_from_spec(found)  # type: ignore[arg-type]
            found.loader.exec_module(module)  # type: ignore[union-attr]
        else:
            module = import_module(place)
        return getattr(module, name)
    except (ImportError, OSError, AttributeError) as error:
        raise ValueError(
            f"--reward_funcs {spec}: {error}; expected FILE.py:NAME or package.module:NAME"
        ) from error


def loaded(specs: Sequence[Any] | None) -> list[Any]:
    """Every `FILE.py:NAME` and `package.module:NAME` as its function; names of ready rewards and models as they are."""
    return [load_function(s) if isinstance(s, str) and ":" in s else s for s in specs or ()]


def rewards(given: OnlineScriptArguments, default: str | None = None) -> list[Any]:
    """The reward model, where there is one, and the functions; `default` is the model where nothing is given.

    Raises ValueError when nothing scores.
    """
    funcs = loaded(given.reward_funcs)
    model = given.reward_model_name_or_path or (None if funcs else default)
    found: list[Any] = [model] if model else []
    found += funcs
    if not found:
        raise ValueError(
            "nothing scores the completions: give --reward_funcs NAME … (accuracy, FILE.py:NAME …), or "
            "--reward_model_name_or_path DIRECTORY"
        )
    return found


def group_trainer(
    trainer: Any, name: str, args: Any, model: ModelConfig, more: Any, data: dict[str, Any]
) -> Any:
    """A GRPOTrainer or RLOOTrainer of the policy `name`."""
    args.model_init_kwargs = {**model.init_kwargs(), **(args.model_init_kwargs or {})}
    return trainer(
        model=name, reward_funcs=rewards(more), args=args, peft_config=get_peft_config(model), **data
    )


def ppo_trainer(trainer: Any, args: Any, model: ModelConfig, more: Any, data: dict[str, Any]) -> Any:
    """A PPOTrainer; the policy is --sft_model_path where it is given, else --model_name_or_path."""
    from ..models import load_causal_lm

    policy = chosen(args, "sft_model_path", model.model_name_or_path)
    if more.reward_model_name_or_path is None and not is_default(args, "reward_model_path"):
        more.reward_model_name_or_path = args.reward_model_path
    critic = None
    if more.value_use_peft:
        critic = get_peft_config(replace(model, use_peft=True, lora_task_type="SEQ_CLS"))
    return trainer(
        args=args,
        model=load_causal_lm(policy, model.init_kwargs()),
        reward_funcs=rewards(more, default=args.reward_model_path),
        value_model=more.value_model_path,
        value_peft_config=critic,
        peft_config=get_peft_config(model),
        **data,
    )


def is_default(args: Any, name: str) -> bool:
    """Whether a field of a config was left as it is."""
    return getattr(args, name) == type(args).__dataclass_fields__[name].default


def chosen(args: Any, name: str, other: str | None) -> str:
    """The field where it was given, else `other`, else the field's default."""
    value = getattr(args, name)
    return other or value if is_default(args, name) else value
