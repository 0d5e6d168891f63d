"""From PPOTrainer's arguments to parts that fit together; every mismatch is one error, before anything is sampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..data import prepare_prompts
from ..models import ActorCritic, Reference, disable_dropout, load_causal_lm, load_tokenizer
from ..rewards import RewardSet
from ..rollout import SamplingParams, stop_ids
from .collector import Means
from .config import adopt
from .ppo_config import PPOConfig
from .schedule import Schedule


@dataclass(frozen=True)
class Parts:
    """What PPOTrainer works with."""

    args: PPOConfig
    tokenizer: Any
    model: ActorCritic
    means: Means
    schedule: Schedule
    train_dataset: Any
    eval_dataset: Any


def build_parts(
    *,
    args: Any,
    processing_class: Any,
    model: Any,
    ref_model: Any,
    rewards: tuple[Any, Any, Any],
    train_dataset: Any,
    eval_dataset: Any,
    value_model: Any,
    data_collator: Any,
    adapters: tuple[Any, Any],
) -> Parts:
    """Load, check and prepare. Raises ValueError or TypeError with what was found, expected, and what to write."""
    args = adopt(args, PPOConfig)
    _require(model, "model", "a causal language model, its name or path")
    _require(train_dataset, "train_dataset", "prompts: a data set, or a list of texts, chats or rows")
    funcs = _reward_funcs(rewards[0], rewards[1])
    if ref_model is not None and ref_model is model:
        raise ValueError(
            "ref_model is the model that is trained, so it would follow it; pass ref_model=None for a frozen copy (with "
            "peft_config: the model without its adapter), or load the reference a second time"
        )
    if data_collator is not None:
        raise ValueError(
            "PPOTrainer pads nothing before sampling, so a data_collator has nothing to do; leave it out and give prompts as "
            "texts, chats or input_ids"
        )
    tokenizer = load_tokenizer(processing_class, model)
    prompts, _ = prepare_prompts(train_dataset, tokenizer, num_proc=args.dataset_num_proc)
    if not hasattr(prompts, "__len__"):
        raise ValueError(
            "train_dataset is a stream; PPO draws prompts by number so that a run can be resumed: pass a data set with a length "
            "(for a stream: datasets.Dataset.from_list(list(stream.take(n))))"
        )
    schedule = args.schedule(len(prompts))
    held_out = _eval_prompts(eval_dataset, tokenizer, args)
    policy = load_causal_lm(model, peft_config=adapters[0])
    if isinstance(ref_model, str):
        ref_model = load_causal_lm(ref_model)
    reference = Reference.of(
        policy, ref_model, ref_adapter_name=args.ref_adapter_name, model_adapter_name=args.model_adapter_name
    )
    actor_critic = ActorCritic(policy, value_model, value_peft_config=adapters[1])
    for module in (actor_critic, reference.model):
        if module is not None:
            disable_dropout(module)
    _check_room(actor_critic.config, prompts, args.response_length)
    return Parts(
        args=args,
        tokenizer=tokenizer,
        model=actor_critic,
        means=Means(
            sampling=_sampling(args, tokenizer, actor_critic.generation_config),
            rewards=_reward_set(funcs, rewards[2], args, tokenizer, prompts),
            reference=reference,
            chunk_rows=args.local_rollout_forward_batch_size,
        ),
        schedule=schedule,
        train_dataset=prompts,
        eval_dataset=held_out,
    )


def _require(value: Any, name: str, expected: str) -> None:
    if value is None:
        raise ValueError(f"PPOTrainer needs {name}=…: {expected}")


def _reward_funcs(reward_model: Any, reward_funcs: Any) -> list[Any]:
    several = reward_funcs if isinstance(reward_funcs, list | tuple) else [reward_funcs]
    found = [f for f in (reward_model, *several) if f is not None]
    if not found:
        raise ValueError(
            "PPOTrainer needs something that scores: reward_funcs=f with f(prompts, completions, **columns) -> list of numbers, "
            "or reward_model=… (a sequence classifier, its name or path)"
        )
    return found


def _reward_set(
    funcs: list[Any], tokenizers: Any, args: PPOConfig, tokenizer: Any, prompts: Any
) -> RewardSet:
    found = RewardSet(
        funcs,
        weights=args.reward_weights,
        processing_classes=tokenizers,
        default_processing_class=tokenizer,
        device=args.device,
        rows=args.local_rollout_forward_batch_size,
    )
    found.check(column for column in prompts[0] if column not in ("prompt", "prompt_ids"))
    return found


def _eval_prompts(eval_dataset: Any, tokenizer: Any, args: PPOConfig) -> Any:
    if eval_dataset is None:
        return None
    if isinstance(eval_dataset, Mapping):
        return {name: _eval_prompts(data, tokenizer, args) for name, data in eval_dataset.items()}
    return prepare_prompts(eval_dataset, tokenizer, num_proc=args.dataset_num_proc, name="eval_dataset")[0]


def _sampling(args: PPOConfig, tokenizer: Any, generation_config: Any) -> SamplingParams:
    if args.stop_token_id is not None:
        stops = frozenset([args.stop_token_id])
    elif args.stop_token == "eos":
        stops = frozenset([tokenizer.eos_token_id])
    else:
        stops = stop_ids(tokenizer, generation_config)
    return SamplingParams(
        max_new_tokens=args.response_length,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        min_p=args.min_p,
        stop_ids=stops,
    )


def _check_room(config: Any, prompts: Any, response: int) -> None:
    room = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not room:
        return
    longest, row = max((len(prompts[i]["prompt_ids"]), i) for i in range(len(prompts)))
    if longest + response > room:
        raise ValueError(
            f"prompt {row} has {longest} tokens; with response_length={response} that is more than the model's {room} positions: "
            f"shorten the prompts to {max(0, room - response)} tokens, or lower response_length"
        )
