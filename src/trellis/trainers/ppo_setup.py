"""From PPOTrainer's arguments to parts that fit together; every mismatch is one error, before anything is sampled."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from transformers import set_seed

from ..models import (
    ActorCritic,
    PreTrainedModelWrapper,
    Reference,
    disable_dropout,
    load_causal_lm,
    load_tokenizer,
)
from ..rollout import SamplingParams
from .collector import Means
from .config import adopt
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
from .ppo_config import PPOConfig
from .schedule import Schedule


@dataclass(frozen=True)
class Parts:
    """What PPOTrainer works with, under the names of OnPolicyTrainer's arguments."""

    args: PPOConfig
    processing_class: Any
    model: ActorCritic
    means: Means
    schedule: Schedule
    train_dataset: Any
    eval_dataset: Any


@dataclass(frozen=True)
class Asked:
    """PPOTrainer's arguments, as given."""

    args: Any
    processing_class: Any
    model: Any
    ref_model: Any
    reward_model: Any
    reward_funcs: Any
    reward_processing_classes: Any
    train_dataset: Any
    eval_dataset: Any
    value_model: Any
    data_collator: Any
    peft_config: Any
    value_peft_config: Any
    value_head: nn.Linear | None = None


def build_parts(asked: Asked) -> Parts:
    """Check, load and prepare. Raises ValueError or TypeError with what was found, expected, and what to write."""
    args = adopt(asked.args, PPOConfig)
    _check_order(asked.processing_class)
    asked = _taken_apart(asked)
    funcs = _check_asked(asked)
    tokenizer = load_tokenizer(asked.processing_class, asked.model)
    prepare = prompt_reader(args, tokenizer)
    prompts = prepare(asked.train_dataset, "train_dataset")
    if not hasattr(prompts, "__len__"):
        raise ValueError(
            "train_dataset is a stream; PPO draws prompts by number so that a run can be resumed: pass a data set with a length "
            "(for a stream: datasets.Dataset.from_list(list(stream.take(n))))"
        )
    schedule = args.schedule(len(prompts))
    held_out = eval_prompts(asked.eval_dataset, prepare)
    actor_critic, reference = _models(asked, args)
    check_room(actor_critic.policy, each(prompts, held_out), args.response_length, "response_length")
    rows = args.local_rollout_forward_batch_size
    rewards = reward_set(funcs, args, tokenizer, tokenizers=asked.reward_processing_classes, rows=rows)
    check_columns(rewards, prompts)
    means = Means(
        sampling=_sampling(args, _stops(args, tokenizer, actor_critic)),
        rewards=rewards,
        reference=reference,
        chunk_rows=rows,
    )
    return Parts(args, tokenizer, actor_critic, means, schedule, prompts, held_out)


def _taken_apart(asked: Asked) -> Asked:
    """Models with a value head as a model and its head; a policy's head becomes the critic, and stays the caller's object."""
    bare = {
        name: given.pretrained_model
        for name in ("model", "ref_model")
        if isinstance(given := getattr(asked, name), PreTrainedModelWrapper)
    }
    if isinstance(asked.value_model, PreTrainedModelWrapper):
        raise TypeError(
            f"value_model is a {type(asked.value_model).__name__}, a policy with a head of its own; give it as model=, or give "
            "value_model a sequence classifier (one score)"
        )
    if "model" in bare and asked.value_model is None:
        bare["value_head"] = asked.model.v_head.summary
    return replace(asked, **bare)


def _check_asked(asked: Asked) -> list[Any]:
    """The rewards, after what can be said before anything is loaded."""
    require(asked.model, "PPOTrainer", "model", "a causal language model, its name or path")
    require(
        asked.train_dataset,
        "PPOTrainer",
        "train_dataset",
        "prompts: a data set, or a list of texts, chats or rows",
    )
    named = isinstance(asked.model, str)  # a name is loaded twice
    if asked.ref_model is not None and asked.ref_model is asked.model and not named:
        raise ValueError(
            "ref_model is the model that is trained, so it would follow it; pass ref_model=None for a frozen copy (with "
            "peft_config: the model without its adapter), or load the reference a second time"
        )
    if asked.data_collator is not None:
        raise ValueError(
            "PPOTrainer pads nothing before sampling, so a data_collator has nothing to do; leave it out and give prompts as "
            "texts, chats or input_ids"
        )
    return _reward_funcs(asked.reward_model, asked.reward_funcs)


def _models(asked: Asked, args: PPOConfig) -> tuple[ActorCritic, Reference]:
    """Policy and critic, and the reference: the policy as it is now unless another was asked for. No dropout anywhere."""
    set_seed(args.seed)  # a fresh adapter draws its weights
    policy = load_causal_lm(asked.model, peft_config=asked.peft_config)
    given = load_causal_lm(asked.ref_model) if isinstance(asked.ref_model, str) else asked.ref_model
    names = {"ref_adapter_name": args.ref_adapter_name, "model_adapter_name": args.model_adapter_name}
    reference = Reference.of(policy, given, **names)
    value_model = asked.value_model
    if value_model is not None and value_model is asked.reward_model:
        value_model = copy.deepcopy(value_model)  # the critic is trained, the reward must not move
    actor_critic = ActorCritic(
        policy, value_model, value_peft_config=asked.value_peft_config, value_head=asked.value_head
    )
    for module in (actor_critic, reference.model):
        if module is not None:
            disable_dropout(module)
    return actor_critic, reference


def _check_order(processing_class: Any) -> None:
    if isinstance(processing_class, nn.Module):
        raise TypeError(
            f"processing_class is a {type(processing_class).__name__}: since TRL 0.12 the order is (args, processing_class, "
            "model, ref_model, …); write PPOTrainer(config=…, model=…, ref_model=…, tokenizer=…, dataset=…, reward_funcs=…)"
        )


def _reward_funcs(reward_model: Any, reward_funcs: Any) -> list[Any]:
    found = listed(reward_model, reward_funcs)
    if not found:
        raise ValueError(
            "PPOTrainer needs something that scores: reward_funcs=f with f(prompts, completions, **columns) -> list of numbers, "
            "or reward_model=… (a sequence classifier, its name or path)"
        )
    return found


def _stops(args: PPOConfig, tokenizer: Any, model: ActorCritic) -> frozenset[int]:
    if args.stop_token is None and args.stop_token_id is None:
        return known_stops(tokenizer, model)
    if args.stop_token is not None and tokenizer.eos_token_id is None:
        raise ValueError(
            f"stop_token={args.stop_token!r}, but the tokenizer has no end token; write stop_token_id=…, or set "
            "tokenizer.eos_token"
        )
    one = tokenizer.eos_token_id if args.stop_token_id is None else args.stop_token_id
    vocabulary = model.config.get_text_config().vocab_size
    if not 0 <= one < vocabulary:
        raise ValueError(
            f"stop_token_id={one} is none of the model's tokens 0 … {vocabulary - 1}, so no response would end"
        )
    return frozenset([one])


def _sampling(args: PPOConfig, stops: frozenset[int]) -> SamplingParams:
    return SamplingParams(
        max_new_tokens=args.response_length,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        min_p=args.min_p,
        stop_ids=stops,
    )
