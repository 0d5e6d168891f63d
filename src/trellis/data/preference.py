"""Pairs and prompts to token ids: pure row functions beside those of `tokenize`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .chat import common_prefix, render, render_prompt
from .messages import (
    as_marks,
    as_messages,
    as_text,
    as_token_ids,
    as_tools,
    is_conversation,
    template_options,
)
from .tokenize import Encoding, _stopped, plain_ids, row_ids

Row = Mapping[str, Any]
Sides = tuple[list[int], list[int], list[int], bool]


def pair_row(row: Row, index: int, enc: Encoding) -> dict[str, Any]:
    """`prompt_ids`, `chosen_ids`, `rejected_ids` (and `margin`) of one pair; the two sides share one identical prompt."""
    prompt, chosen, rejected, moved = (_pair_tokens if enc.kind == "pair_tokens" else _pair)(row, enc)
    whole = len(prompt) + max(len(chosen), len(rejected))
    fault = _pair_fault(chosen, rejected)
    before = len(prompt) + len(chosen) + len(rejected)
    need = whole if enc.over_length == "drop" else _pair_need(prompt, chosen, rejected, enc)
    if not fault:
        prompt, chosen, rejected, fault = _fitted(prompt, chosen, rejected, enc)
    out: dict[str, Any] = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
    if row.get("margin") is not None:
        out["margin"] = _margin(row["margin"])
    return out | {
        "_drop": fault,
        "_cut": before - len(prompt) - len(chosen) - len(rejected),
        "_need": need,
        "_trained": len(chosen) + len(rejected),
        "_seam": int(moved),
        "_stopped": min(_stopped(enc, side, [1] * len(side)) for side in (chosen, rejected)),
    }


def _pair_fault(chosen: list[int], rejected: list[int]) -> str:
    if chosen == rejected:
        return "chosen and rejected are the same"
    return "" if chosen and rejected else "an answer is empty"


def _pair_need(prompt: list[int], chosen: list[int], rejected: list[int], enc: Encoding) -> int:
    """The smallest max_length that keeps the first token in which the answers differ."""
    kept = len(prompt) if enc.over_length == "keep_start" else min(1, len(prompt))
    if enc.max_prompt_length is not None:
        kept = min(kept, enc.max_prompt_length)
    return kept + common_prefix(chosen, rejected) + 1


def _fitted(
    prompt: list[int], chosen: list[int], rejected: list[int], enc: Encoding
) -> tuple[list[int], list[int], list[int], str]:
    """The sides within the limits, their prompt still one and the same, and why they can't be used ("" = they can).

    A prompt loses its beginning, an answer its end. Where the longer side has more than `max_length` tokens, "keep_end" takes
    from the prompt first (one token stays, as the first answer token needs a past), "keep_start" from the answers.
    """
    if enc.max_prompt_length is not None:
        prompt = prompt[max(0, len(prompt) - enc.max_prompt_length) :]
    room = enc.max_completion_length
    chosen, rejected = chosen[:room], rejected[:room]
    over = 0
    if enc.max_length is not None:
        over = max(0, len(prompt) + max(len(chosen), len(rejected)) - enc.max_length)
    if over and enc.over_length == "drop":
        return prompt, chosen, rejected, "longer than max_length"
    if over and enc.over_length == "keep_end":
        prompt = prompt[min(over, max(0, len(prompt) - 1)) :]
    if over:
        room = max(0, enc.max_length - len(prompt))  # type: ignore[operator]
        chosen, rejected = chosen[:room], rejected[:room]
    if not chosen or not rejected:
        return prompt, chosen, rejected, "no room for an answer after the prompt"
    fault = "chosen and rejected are the same after the cut" if chosen == rejected else ""
    return prompt, chosen, rejected, fault


def _margin(value: Any) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or value != value
        or abs(value) == float("inf")
    ):
        raise ValueError(f"`margin` must be a finite number, found {value!r}")
    return float(value)


def _pair_tokens(row: Row, enc: Encoding) -> Sides:
    chosen, rejected = (row_ids(row, enc, name) for name in ("chosen_ids", "rejected_ids"))
    if "prompt_ids" in enc.columns:
        return row_ids(row, enc, "prompt_ids"), chosen, rejected, False
    return _split(common_prefix(chosen, rejected), chosen, rejected)


def _split(at: int, chosen: list[int], rejected: list[int], moved: bool = False) -> Sides:
    # Where one side is the beginning of the other, the last token stays an answer: no side is empty.
    at = at if chosen == rejected else min(at, len(chosen) - 1, len(rejected) - 1)
    at = max(at, 0)
    return chosen[:at], chosen[at:], rejected[at:], moved


def _pair(row: Row, enc: Encoding) -> Sides:
    sides = [row[enc.columns[name]] for name in ("chosen", "rejected")]
    prompt = row[enc.columns["prompt"]] if "prompt" in enc.columns else None
    if any(is_conversation(value) for value in (prompt, *sides)):
        return _chat_pair(row, enc, prompt, sides)
    texts = [as_text(side, name) for side, name in zip(sides, ("chosen", "rejected"), strict=True)]
    if prompt is None:
        chosen, rejected = (plain_ids(enc, text, end=True) for text in texts)
        return _split(common_prefix(chosen, rejected), chosen, rejected)
    before = plain_ids(enc, as_text(prompt, enc.columns["prompt"]), end=False)
    chosen, rejected = (plain_ids(enc, prompt + text, end=True) for text in texts)
    return _shared_seam(before, chosen, rejected)


def _shared_seam(before: list[int], chosen: list[int], rejected: list[int]) -> Sides:
    at = common_prefix(before, chosen, rejected)
    return _split(at, chosen, rejected, at < len(before))


def _chat_pair(row: Row, enc: Encoding, prompt: Any, sides: Sequence[Any]) -> Sides:
    options = {"tools": as_tools(row.get("tools")) or enc.tools, **template_options(row)}
    answers = [as_messages(side, "assistant") for side in sides]
    if prompt is None:
        at = common_prefix(*answers)
        at = min(at, len(answers[0]) - 1, len(answers[1]) - 1)
        before, answers = answers[0][:at], [side[at:] for side in answers]
    else:
        before = as_messages(prompt, "user")
        answers = [side[len(before) :] if side[: len(before)] == before else side for side in answers]
    chosen, rejected = (render(enc.tokenizer, before + side, **options) for side in answers)
    if not before:
        return _split(common_prefix(chosen, rejected), chosen, rejected)
    return _shared_seam(render_prompt(enc.tokenizer, before, **options), chosen, rejected)


def prompt_row(row: Row, index: int, enc: Encoding) -> dict[str, Any]:
    """`prompt_ids` and `prompt` (the original text or messages; decoded where only ids were given) of one prompt."""
    name = next(iter(enc.columns.values()))
    value, prompt = row[name], row.get("prompt")
    if enc.kind == "prompt_tokens":
        ids = as_token_ids(value, name, enc.vocabulary)
        if row.get("attention_mask") is not None:
            marks = as_marks(row["attention_mask"], "attention_mask", len(ids))
            ids = [i for i, real in zip(ids, marks, strict=True) if real]
        prompt = enc.tokenizer.decode(ids, skip_special_tokens=True) if prompt is None else prompt
    elif is_conversation(value):
        prompt = as_messages(value, "user")
        options = {"tools": as_tools(row.get("tools")), **enc.template, **template_options(row)}
        ids = render_prompt(enc.tokenizer, prompt, **options)
    else:
        prompt = as_text(value, name)
        ids = plain_ids(enc, prompt, end=False)
    over = 0 if enc.max_length is None else max(0, len(ids) - enc.max_length)
    cut = over if enc.over_length == "keep_end" else 0
    drop = "empty prompt" if not ids else ("longer than the prompt may be" if over > cut else "")
    return {
        "prompt_ids": ids[cut:],
        "prompt": prompt,
        "_drop": drop,
        "_cut": cut,
        "_need": len(ids),
        "_trained": len(ids) - cut,
        "_seam": 0,
        "_stopped": 0,
    }
