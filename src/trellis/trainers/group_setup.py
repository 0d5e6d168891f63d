"""From the arguments of GRPOTrainer and RLOOTrainer to parts that fit together; every mismatch is one error, before sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import set_seed

from ..agents import ToolLoop, driver_for
from ..models import (
    Reference,
    choose_adapter,
    disable_dropout,
    learned_positions,
    load_causal_lm,
    load_tokenizer,
)
from ..rollout import Driver, Engine, InProcess
from .collector import Means
from .config import adopt
from .follow import check_follows
from .group_config import GroupConfig
from .online_setup import (
    check_columns,
    check_room,
    each,
    eval_prompts,
    known_stops,
    listed,
    prompt_reader,
    require,
    reward_set,
)
from .schedule import Schedule


@dataclass(frozen=True)
class GroupParts:
    """What a group trainer works with, under the names of OnPolicyTrainer's arguments."""

    args: Any
    processing_class: Any
    model: Any
    means: Means
    schedule: Schedule
    train_dataset: Any
    eval_dataset: Any


@dataclass(frozen=True)
class GroupAsked:
    """The trainer's arguments, as given; `owner` is its name."""

    owner: str
    config: type[GroupConfig]
    model: Any
    reward_funcs: Any
    args: Any
    train_dataset: Any
    eval_dataset: Any
    processing_class: Any
    reward_processing_classes: Any
    peft_config: Any
    ref_model: Any
    engine: Engine | None = None
    tools: Any = None
    environment_factory: Any = None
    rollout_func: Any = None


def build_group_parts(asked: GroupAsked) -> GroupParts:
    """Check, load and prepare. Raises ValueError or TypeError with what was found, expected, and what to write."""
    args: Any = adopt(asked.args, asked.config)
    funcs = _check_asked(asked, args)
    tokenizer = load_tokenizer(asked.processing_class, asked.model)
    limit = {"max_length": args.max_prompt_length, "over_length": "keep_end"}
    prepare = prompt_reader(args, tokenizer, template_kwargs=args.chat_template_kwargs, **limit)
    prompts = prepare(asked.train_dataset, "train_dataset")
    schedule = args.schedule(len(prompts) if hasattr(prompts, "__len__") else None)
    held_out = eval_prompts(asked.eval_dataset, prepare)
    model, reference = _models(asked, args)
    sets = each(prompts, held_out)
    check_room(model, sets, args.max_completion_length, "max_completion_length")
    rows = args.per_device_train_batch_size
    stops = known_stops(tokenizer, model)
    driver = _driver(asked, args, tokenizer, model, stops)
    funcs = funcs or _own_rewards(driver)
    rewards = reward_set(funcs, args, tokenizer, tokenizers=asked.reward_processing_classes, rows=rows)
    if asked.rollout_func is None:  # its columns are known when it has run
        check_columns(rewards, prompts, getattr(driver, "columns", ()))
    if isinstance(driver, ToolLoop):
        driver.check(next(iter(prompts)))
    means = Means(
        sampling=args.sampling(stops),
        rewards=rewards,
        reference=reference,
        chunk_rows=rows,
        engine=asked.engine or InProcess(schedule.rows // schedule.world),
        driver=driver,
    )
    return GroupParts(args, tokenizer, model, means, schedule, prompts, held_out)


def _check_asked(asked: GroupAsked, args: Any) -> list[Any]:
    """The rewards, after what can be said before anything is loaded."""
    require(asked.model, asked.owner, "model", "a causal language model, its name or path")
    require(
        asked.train_dataset,
        asked.owner,
        "train_dataset",
        "prompts: a data set, or a list of texts, chats or rows",
    )
    funcs = listed(asked.reward_funcs)
    if not funcs and asked.environment_factory is None:
        raise ValueError(
            f"{asked.owner} needs something that scores: reward_funcs=f with f(completions, **columns) -> list of numbers, "
            "the name of a ready reward such as 'accuracy', or a sequence classifier, its name or path"
        )
    if asked.ref_model is not None and args.beta == 0:
        raise ValueError(
            "a ref_model was given, but beta=0 asks for no KL penalty; write beta=0.04, or leave ref_model out"
        )
    return funcs


def _driver(asked: GroupAsked, args: Any, tokenizer: Any, model: Any, stops: frozenset[int]) -> Driver:
    """Who leads from prompts to completions."""
    return driver_for(
        tokenizer,
        tools=asked.tools,
        environment_factory=asked.environment_factory,
        rollout_func=asked.rollout_func,
        max_new_tokens=args.max_completion_length,
        max_iterations=getattr(args, "max_tool_calling_iterations", None),
        chat_template_kwargs=args.chat_template_kwargs,
        room=learned_positions(model) or None,
        stops=stops,
    )


def _own_rewards(driver: Any) -> list[Any]:
    """The rewards of environments that score themselves."""
    if not driver.rewards:
        raise ValueError(
            "no environment has a method get_reward, and there are no reward_funcs: give one of them, such as "
            "def get_reward(self) -> float"
        )
    return driver.rewards


def _models(asked: GroupAsked, args: Any) -> tuple[Any, Reference | None]:
    """The policy, and where there is a KL penalty its reference: the policy as it is now unless another was asked for."""
    set_seed(args.seed)  # a fresh adapter draws its weights
    model = load_causal_lm(asked.model, args.model_init_kwargs, peft_config=asked.peft_config)
    reference = None
    choose_adapter(model, args.model_adapter_name)
    if args.beta > 0:
        given = load_causal_lm(asked.ref_model) if isinstance(asked.ref_model, str) else asked.ref_model
        reference = Reference.of(model, given, ref_adapter_name=args.ref_adapter_name)
        if args.sync_ref_model:
            check_follows(reference, model)
    kept = None if reference is None else reference.model
    for module in (model, kept):
        if module is not None and args.disable_dropout:
            disable_dropout(module)
    return model, reference
