"""Rows and readings that several data tests share."""

from __future__ import annotations

from trellis.data import prepare_language_modeling, prepare_pairs

USER, YES, NO = (
    {"role": "user", "content": "is it good ?"},
    {"role": "assistant", "content": "it is very good ."},
    {"role": "assistant", "content": "it does not work ."},
)
AGAIN = {"role": "user", "content": "would i buy it again ?"}


def one(row, tokenizer, **options):
    """The prepared row of a data set with one row."""
    return prepare_language_modeling([row], tokenizer, **options)[0][0]


def one_pair(row, tokenizer, **options):
    """The prepared pair of a data set with one pair."""
    return prepare_pairs([row], tokenizer, **options)[0][0]


def trained_text(row, tokenizer):
    """What the loss mask picks, as text."""
    return tokenizer.decode([i for i, m in zip(row["input_ids"], row["loss_mask"], strict=True) if m])


def text(row, tokenizer):
    """The whole row as text."""
    return tokenizer.decode(row["input_ids"])
