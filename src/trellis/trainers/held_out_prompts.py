"""Prompts of any trainer's prepared rows, and how they are answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from ..models import policy_of
from ..rollout import SamplingParams, stop_ids
from .eval_table import room

GIVE = "pass WinRateCallback(…, dataset=[{'prompt': …}, …])"


@dataclass(frozen=True)
class Question:
    """A prompt's tokens, and what a judge reads of it: its text or chat where the rows still have it, else the decoded tokens."""

    ids: list[int]
    said: Any


def first_set(data: Any) -> Any:
    """The first of several sets of rows, or the only one."""
    return next(iter(data.values())) if isinstance(data, Mapping) else data


def questions_of(rows: Any, tokenizer: Any, count: int | None = None, *, give: str = GIVE) -> list[Question]:
    """The first `count` different prompts (None: all) of prepared rows. Raises ValueError where the rows hold none, with what to
    `give`."""
    if rows is None:
        raise ValueError(f"there are no prompts to answer: the trainer has no eval_dataset; {give}")
    if count is not None and count < 1:
        raise ValueError(f"num_prompts must be at least 1, or None for all, found {count}")
    if count is None and not hasattr(rows, "__len__"):
        raise ValueError(
            "the eval_dataset is a stream; say with num_prompts= how many of its prompts are answered"
        )
    found = list(islice(_different(rows, tokenizer, give), count))
    if not found:
        raise ValueError(f"there are no prompts to answer: the eval_dataset has 0 rows; {give}")
    return found


def _different(rows: Iterable[Mapping[str, Any]], tokenizer: Any, give: str) -> Iterable[Question]:
    seen = set()
    for number, row in enumerate(rows):
        ids = _prompt_ids(row)
        if not ids:
            raise ValueError(
                f"row {number} of the eval_dataset has no prompt to answer (columns {sorted(row)}); {give}"
            )
        if tuple(ids) not in seen:
            seen.add(tuple(ids))
            yield Question(ids, row.get("prompt") or tokenizer.decode(ids, skip_special_tokens=True))


def _prompt_ids(row: Mapping[str, Any]) -> list[int]:
    if "prompt_ids" in row:
        return list(row["prompt_ids"])
    if "seq_lengths" in row:  # packed: several texts
        return []
    return list(row.get("input_ids", []))[: row.get("prompt_len", 0)]


def sampling_of(trainer: Any, config: Any, longest: int) -> SamplingParams:
    """As the trainer samples (where it does not: at temperature 1), or as `config` says. Raises ValueError for beams."""
    collector = getattr(trainer, "collector", None)
    if collector is not None:
        params = collector.means.sampling
    else:
        policy, tokenizer = policy_of(trainer.model), trainer.processing_class
        stops = stop_ids(tokenizer, getattr(policy, "generation_config", None))
        params = SamplingParams(max_new_tokens=room(trainer, policy, longest), stop_ids=stops)
    if config is None or isinstance(config, SamplingParams):
        return config or params
    if (config.num_beams or 1) > 1:
        raise ValueError(
            f"generation_config has num_beams={config.num_beams}; answers are drawn one token at a time: write 1"
        )
    params = replace(params, greedy=not config.do_sample)
    if config.max_new_tokens is not None:
        params = replace(params, max_new_tokens=config.max_new_tokens)
    if params.greedy:
        return params
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    given = {name: getattr(config, name, None) for name in names}
    return replace(params, **{name: value for name, value in given.items() if value is not None})
