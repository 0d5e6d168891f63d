"""A chat template with its tokens, from another tokenizer into a model and its tokenizer."""

from __future__ import annotations

import os
from typing import Any

from ..data.templates import take_template


def clone_chat_template(
    model: Any,
    tokenizer: Any,
    source_tokenizer_path: str | os.PathLike,
    resize_to_multiple_of: int | None = 64,
) -> tuple[Any, Any, list[int]]:
    """(model, tokenizer, the ids of new tokens): both changed in place. The tokenizer gets the source's template, the special
    tokens that it writes, and its end token; the model that end token, and embeddings for what is new, in rows of a multiple of
    `resize_to_multiple_of`. Rows beyond get tokens of their own (`<extra_id_0>` …), so that both have one size.

    Raises ValueError where the source has no template. `SFTConfig(chat_template_path=…)` does the same to copies.
    """
    before = len(tokenizer)
    take_template(tokenizer, os.fspath(source_tokenizer_path))
    ends = tokenizer.eos_token_id
    model.config.eos_token_id = ends
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.eos_token_id = ends
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows or (resize_to_multiple_of and rows % resize_to_multiple_of):
        size = max(len(tokenizer), rows)
        model.resize_token_embeddings(size, pad_to_multiple_of=resize_to_multiple_of)
        rows = model.get_input_embeddings().weight.shape[0]
    known, number = tokenizer.get_vocab(), 0
    while len(tokenizer) < rows:
        if f"<extra_id_{number}>" not in known:
            tokenizer.add_tokens(f"<extra_id_{number}>")
        number += 1
    return model, tokenizer, list(range(before, len(tokenizer)))
