"""Padding tokens that stock classifiers understand."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from typing import Any

logger = logging.getLogger(__name__)


def distinct_pad(tokenizer: Any) -> Any:
    """The tokenizer itself, or a copy that pads with another token when its padding token is its end token.

    A stock classifier takes a row's last token that is not the padding token; with pad == eos that would be the one before the
    end. The new one is a spare special token, else the unknown or the begin token, else the last vocabulary entry whose written
    form no text contains.
    """
    if tokenizer.pad_token_id != tokenizer.eos_token_id:
        return tokenizer
    found = next((t for t in _pad_candidates(tokenizer) if t and t != tokenizer.eos_token), None)
    if found is None:
        raise ValueError(
            "the tokenizer pads with its end token and has no other token for it; set tokenizer.pad_token"
        )
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.pad_token = found
    logger.info(
        "the padding token was the end token; the classifier pads with %r, so that it is read at the end",
        found,
    )
    return tokenizer


def _pad_candidates(tokenizer: Any) -> Iterator[str | None]:
    spare = ("pad", "reserved", "unused", "extra")
    added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    yield from (token for token in added if any(word in token.lower() for word in spare))
    yield from (tokenizer.unk_token, tokenizer.bos_token)
    for i in range(len(tokenizer) - 1, -1, -1):
        token = tokenizer.convert_ids_to_tokens(i)
        if token not in added and token != tokenizer.decode([i]):
            yield token
