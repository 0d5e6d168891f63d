"""What kind of data a data set is, by its columns, and which methods learn from it."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.formats import language_schema, pair_schema, prompt_schema

METHODS = ("sft", "reward", "dpo", "kto", "orpo", "cpo", "ppo", "grpo", "rloo")
LEARN_FROM = {
    "thumbs": ("kto",),
    "pairs": ("dpo", "orpo", "cpo", "reward", "kto"),
    "instructions": ("sft",),
    "prompts": ("grpo", "rloo", "ppo"),
}
ANSWER_COLUMNS = ("solution", "answer")
"""Columns that the ready accuracy rewards compare with."""


def kind_of(columns: Sequence[str]) -> str:
    """One of LEARN_FROM: answers with a label, pairs of answers, texts to imitate, or prompts. Raises ValueError for columns that
    fit none of them."""
    found = set(columns)
    if any({f"chosen{end}", f"rejected{end}"} <= found for end in ("", "_ids", "_input_ids")):
        return "pairs"
    if "label" in found and _thumbs(found):
        return "thumbs"
    if "prompt" in found and "completion" not in found and "response" not in found:
        return "prompts"
    try:
        language_schema(columns)
    except ValueError as error:
        return _prompts(columns, error)
    return "instructions"


def _thumbs(found: set[str]) -> bool:
    return any({a, b} <= found for a, b in (("prompt", "completion"), ("prompt_ids", "completion_ids")))


def _prompts(columns: Sequence[str], other: ValueError) -> str:
    try:
        prompt_schema(columns)
    except ValueError:
        if {"chosen", "rejected"} & set(columns):
            pair_schema(columns)  # says which one is missing
        raise other from None
    return "prompts"
