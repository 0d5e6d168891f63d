"""A recipe for a data set, a method and this machine: every line with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from ..losses.unpaired import recommended_weights
from .advice import Facts
from .machine import USED, rows_at_once, states

Lines = list[tuple[str, Any, str]]
"""(name, value, why)."""

ONLINE = ("ppo", "grpo", "rloo")
ONLINE_STEP = 64
USUAL_STEP = 32
LEAST_STEPS = 20
MOST_ROWS = 16
GENERATIONS = 8
RESPONSE = 128
REFERENCE = ("dpo", "kto", "ppo", "rloo")
ADAPTER_RATE = {
    "sft": 2e-4,
    "dpo": 1e-5,
    "kto": 1e-5,
    "orpo": 1e-5,
    "cpo": 1e-5,
    "grpo": 1e-5,
    "rloo": 1e-5,
    "ppo": 3e-5,
}
"""Learning rates of adapters: about ten times those of all weights."""


@dataclass(frozen=True)
class Wanted:
    """What a recipe is for: the method, the data by name, whether there is a test split, the model, and what scores answers."""

    method: str
    data: str
    has_test: bool
    model: str | None
    reward: str | None = None
    reward_model: str | None = None


def lines_of(wanted: Wanted, facts: Facts) -> Lines:
    """The lines of a recipe for one method."""
    adapter = needs_adapter(wanted, facts)
    found: Lines = []
    if wanted.model:
        found.append(("sft_model_path" if wanted.method == "ppo" else "model_name_or_path", wanted.model, ""))
    found += [("dataset_name", wanted.data, ""), ("output_dir", f"my-{wanted.method}", "")]
    found += _scores(wanted) + _lengths(wanted, facts) + _sizes(wanted, facts, adapter)
    if wanted.method == "kto":
        found += _weights(facts)
    if adapter:
        found.append(("use_peft", True, "all weights do not fit in this machine's memory"))
        if wanted.method in ADAPTER_RATE:
            found.append(
                (
                    "learning_rate",
                    ADAPTER_RATE[wanted.method],
                    "an adapter learns at about ten times the rate",
                )
            )
    if wanted.has_test:
        found.append(("eval_strategy", "epoch", "on the test split"))
    return found


def needs_adapter(wanted: Wanted, facts: Facts) -> bool:
    """Whether all weights do not fit."""
    return not facts.fits(reference=wanted.method in REFERENCE, reward=bool(wanted.reward_model))


def _scores(wanted: Wanted) -> Lines:
    if wanted.reward_model:
        name = "reward_model_path" if wanted.method == "ppo" else "reward_model_name_or_path"
        return [(name, wanted.reward_model, "scores answers")]
    return [("reward_funcs", [wanted.reward], "scores answers")] if wanted.reward else []


def _lengths(wanted: Wanted, facts: Facts) -> Lines:
    rows, answer = (facts.lengths.get(part, 0) for part in ("row", "answer"))
    prompt = facts.lengths.get("prompt", rows)  # rows of prompts alone have no other part
    cap = facts.model.positions if facts.model and facts.model.positions else 4096
    if wanted.method == "ppo":
        return [("response_length", min(answer or RESPONSE, cap), _why_response(answer))]
    if wanted.method in ("grpo", "rloo"):
        limit = ("max_prompt_length", min(prompt, cap), "99 % of the prompts fit")
        return [limit, ("max_completion_length", min(RESPONSE, cap), _why_response(0))]
    return [
        ("max_length", min(rows, cap), "99 % of the rows fit" if rows <= cap else "the model's positions")
    ]


def _why_response(known: int) -> str:
    return (
        "99 % of the answers in the data fit"
        if known
        else "tokens of an answer; raise it where answers are cut"
    )


def _sizes(wanted: Wanted, facts: Facts, adapter: bool) -> Lines:
    """Micro-batch and accumulation: what fits at once, and how many rows make a step."""
    micro = _micro(wanted, facts, adapter)
    online = wanted.method in ONLINE
    step = _step(wanted.method, facts.rows)
    micro = min(micro, step)
    what = "completions" if online else "rows"
    found: Lines = [
        ("per_device_train_batch_size", micro, f"{what} at once"),
        ("gradient_accumulation_steps", step // micro, f"{step} {what} per step"),
        ("num_train_epochs", 2 if wanted.method == "sft" else 1, ""),
    ]
    if wanted.method in ("grpo", "rloo"):
        found.append(("num_generations", GENERATIONS, "answers per prompt, compared with each other"))
    return found


def _step(method: str, rows: int) -> int:
    """Rows (or completions) per optimizer step, a power of two: the usual number, but enough steps in an epoch."""
    if method in ("grpo", "rloo"):
        return min(ONLINE_STEP, GENERATIONS * _power_below(rows // 2))
    return (
        min(ONLINE_STEP, _power_below(rows // 2))
        if method == "ppo"
        else min(USUAL_STEP, _power_below(rows // LEAST_STEPS))
    )


def _power_below(count: int) -> int:
    return 1 << max(0, count.bit_length() - 1)


def _micro(wanted: Wanted, facts: Facts, adapter: bool) -> int:
    if facts.model is None:
        return 4
    held = states(
        facts.model.parameters,
        reference=wanted.method in REFERENCE,
        reward=bool(wanted.reward_model),
        adapter=adapter,
    )
    sides = 2 if facts.kind == "pairs" and wanted.method not in ONLINE else 1
    tokens = sides * max(16, facts.lengths.get("row", 0) + (RESPONSE if wanted.method in ONLINE else 0))
    free = USED * facts.machine.memory - held
    return min(
        MOST_ROWS, rows_at_once(free, facts.model, tokens, recompute=facts.machine.device != "the CPU")
    )


def _weights(facts: Facts) -> Lines:
    liked, disliked = facts.liked
    ranges = recommended_weights(liked, disliked, 1.0, 1.0) if liked and disliked else None
    if ranges is None:
        return []
    (a, b), (c, d) = ranges
    name, low, high = ("desirable_weight", a, b) if liked < disliked else ("undesirable_weight", c, d)
    return [
        (name, round((low + high) / 2, 3), f"{liked} liked, {disliked} not: {low:.2f} to {high:.2f} balances")
    ]


def as_yaml(parts: dict[str, Lines], head: list[str]) -> str:
    """The recipe of one method, or of several in a block each, under comments."""
    out = [f"# {line}" for line in head]
    if len(parts) == 1:
        return "\n".join([*out, *_written(next(iter(parts.values())), "")]) + "\n"
    for method, lines in parts.items():
        out += [f"{method}:", *_written(lines, "  ")]
    return "\n".join(out) + "\n"


def _written(lines: Lines, indent: str) -> list[str]:
    found = []
    for name, value, why in lines:
        text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
        text = text.strip().removesuffix("...").strip()  # yaml ends a bare value with three dots
        found.append(f"{indent}{name}: {text}" + (f"  # {why}" if why else ""))
    return found
