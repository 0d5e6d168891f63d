"""What trainers that sample have to check and prepare alike; every mismatch is one error, before anything is sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..data import prepare_prompts
from ..models import learned_positions
from ..rewards import RewardSet
from ..rollout import stop_ids

Prepare = Callable[[Any, str], Any]
"""(data, its name in messages) → prepared prompts."""


def require(value: Any, owner: str, name: str, expected: str) -> None:
    """Raises ValueError where `value` is missing."""
    if value is None:
        raise ValueError(f"{owner} needs {name}=…: {expected}")


def listed(*reward_funcs: Any) -> list[Any]:
    """One list of what was given one by one or in lists."""
    parts = [f if isinstance(f, list | tuple) else [f] for f in reward_funcs]
    return [f for part in parts for f in part if f is not None]


def prompt_reader(args: Any, tokenizer: Any, **limits: Any) -> Prepare:
    """How this run's prompts are prepared."""

    def prepare(data: Any, name: str) -> Any:
        return prepare_prompts(data, tokenizer, num_proc=args.dataset_num_proc, name=name, **limits)[0]

    return prepare


def eval_prompts(data: Any, prepare: Prepare) -> Any:
    """Prepared held-out prompts: of one data set, or of each in a dict."""
    if data is None:
        return None
    if isinstance(data, Mapping):
        return {name: eval_prompts(part, prepare) for name, part in data.items()}
    return prepare(data, "eval_dataset")


def reward_set(funcs: list[Any], args: Any, tokenizer: Any, *, tokenizers: Any, rows: int) -> RewardSet:
    """The rewards of a run as its config wants them."""
    return RewardSet(
        funcs,
        weights=args.reward_weights,
        processing_classes=tokenizers,
        default_processing_class=tokenizer,
        device=args.device,
        rows=rows,
        on_error=args.on_reward_error,
        timeout=args.reward_timeout,
    )


def check_columns(rewards: RewardSet, prompts: Any, more: Iterable[str] = ()) -> None:
    """Raises RewardError when a reward needs a column that neither the data nor the driver has."""
    first = next(iter(prompts))
    rewards.check([*(column for column in first if column not in ("prompt", "prompt_ids")), *more])


def known_stops(tokenizer: Any, model: Any) -> frozenset[int]:
    """Every token that ends a completion."""
    return stop_ids(tokenizer, model.generation_config)


def check_room(policy: Any, sets: Iterable[Any], response: int, option: str) -> None:
    """Raises ValueError for a prompt after which the model has no positions for a completion."""
    room = learned_positions(policy)
    for prompts in sets:
        if not room or not hasattr(prompts, "__len__"):
            continue
        longest, row = max((len(prompts[i]["prompt_ids"]), i) for i in range(len(prompts)))
        if longest + response > room:
            raise ValueError(
                f"prompt {row} has {longest} tokens; with {option}={response} that is more than the model's {room} positions: "
                f"shorten the prompts to {max(0, room - response)} tokens, or lower {option}"
            )


def each(train: Any, held_out: Any) -> list[Any]:
    """The training prompts and every set of held-out ones."""
    held = list(held_out.values()) if isinstance(held_out, Mapping) else [held_out]
    return [train, *(rows for rows in held if rows is not None)]
