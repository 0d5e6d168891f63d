"""Embeddings that fit the tokenizer: grown only where they must, and never in silence."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from .adapters import is_peft
from .modules import base_causal_lm

logger = logging.getLogger(__name__)


def fit_embeddings(model: nn.Module, tokenizer: Any, peft_config: Any) -> None:
    """Grow the embeddings where the tokenizer has more tokens than rows. Raises ValueError when adapters could not train them."""
    base = base_causal_lm(model)
    weight = base.get_input_embeddings().weight
    rows = getattr(weight, "ds_shape", weight.shape)[0]  # cut by DeepSpeed, it has no shape of its own
    if len(tokenizer) <= rows:
        return
    kept = getattr(peft_config, "modules_to_save", None) or getattr(
        peft_config, "trainable_token_indices", None
    )
    if is_peft(model) or (peft_config is not None and not kept):
        read = (base.get_input_embeddings(), base.get_output_embeddings())
        names = [name.rpartition(".")[2] for name, module in base.named_modules() if module in read]
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens and the model {rows} embeddings; an adapter alone cannot train the new "
            f"ones. Write LoraConfig(modules_to_save={names}, …), or resize and train them before."
        )
    logger.warning(
        "embeddings grow from %d to %d rows for new tokens, which are trained and saved", rows, len(tokenizer)
    )
    base.resize_token_embeddings(len(tokenizer))
