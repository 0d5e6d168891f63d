"""A vocabulary head that computes in float32 on top of a trunk in half precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .modules import base_causal_lm


def widen_head(model: nn.Module) -> None:
    """Turn the head's weights into float32 and let it read states of any precision; where it is float32 already, nothing changes.

    Raises ValueError where the head is the embedding matrix, which would follow.
    """
    base: Any = base_causal_lm(model)
    head = base.get_output_embeddings()
    if head.weight.dtype == torch.float32:
        return
    if head.weight is base.get_input_embeddings().weight:
        raise ValueError(
            "cast_lm_head_to_fp32=True, but this model's head is its embedding matrix (tie_word_embeddings=True), which would "
            "become float32 with it; load the model with tie_word_embeddings=False, or leave cast_lm_head_to_fp32 out"
        )
    head.float()
    head.register_forward_pre_hook(_widened)


def _widened(head: nn.Module, states: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(x.to(head.weight.dtype) for x in states)  # type: ignore[arg-type]
