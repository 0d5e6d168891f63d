"""The arguments that trade time or digits for memory, and what does not go together."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from transformers import TrainingArguments

from ..models.quantized import require_bitsandbytes
from .fields import config, option

BITSANDBYTES = ("adamw_bnb", "adamw_8bit", "ademamix", "lion_", "paged_", "rmsprop_bnb")
"""How the names of optimizers begin that bitsandbytes holds."""
TORCHAO = ("adamw_torch_4bit", "adamw_torch_8bit")


@config
class MemoryConfig(TrainingArguments):
    """TrainingArguments with the memory switches of docs/memory.md.

    Raises ValueError for what would change other numbers than it says, ImportError where an optimizer's package is missing.
    """

    activation_offloading: bool = option(
        False, "Keep activations for the backward pass in the CPU's memory (nothing changes on a CPU)."
    )
    optimizer_in_backward: bool = option(
        False,
        "Step each parameter as soon as backward has its gradient, which is then let go. One process, one micro-batch per step, "
        "max_grad_norm=0.",
    )
    offload_reference: bool = option(
        False,
        "Keep a reference model in the CPU's memory while it is not asked (nothing changes on a CPU, or under an adapter).",
    )
    cast_lm_head_to_fp32: bool = option(
        False, "Compute the head's logits in float32, whatever the model is in."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_optimizer(_name(self.optim))
        if self.cast_lm_head_to_fp32 and (self.bf16 or self.fp16):
            raise ValueError(
                "cast_lm_head_to_fp32=True: expected False with bf16 or fp16 autocast, which would undo it; or write bf16=False "
                "and load the model in bfloat16 (model_init_kwargs={'dtype': 'bfloat16'})"
            )
        if self.optimizer_in_backward:
            self._check_stepping()

    def _check_stepping(self) -> None:
        """What needs the whole gradient, or a second backward pass, is refused."""
        against = (
            (self.max_grad_norm > 0, f"max_grad_norm={self.max_grad_norm}", "max_grad_norm=0 (no clipping)"),
            (
                _name(self.optim).startswith(BITSANDBYTES),
                f"optim={_name(self.optim)!r}",
                "an optimizer of torch (bitsandbytes knows parameters by their place)",
            ),
            (self.fp16, "fp16=True", "bf16=True or float32 (no gradient scaler)"),
            (self.world_size > 1, f"{self.world_size} processes", "one process"),
            (bool(self.deepspeed), "deepspeed", "no DeepSpeed"),
            (
                getattr(self, "micro_batch_tokens", None) is not None,
                "micro_batch_tokens",
                "whole micro-batches",
            ),
            (getattr(self, "on_bad_step", None) == "skip", 'on_bad_step="skip"', '"stop" or "rollback"'),
        )
        for wrong, found, expected in against:
            if wrong:
                raise ValueError(f"optimizer_in_backward=True with {found}: expected {expected}")


def _name(optim: Any) -> str:
    return str(getattr(optim, "value", optim))


def _check_optimizer(name: str) -> None:
    if name.startswith(BITSANDBYTES):
        require_bitsandbytes(f"optim={name!r}", "take adamw_torch_fused")
    if name in TORCHAO and find_spec("torchao") is None:
        raise ImportError(
            f"optim={name!r} needs torchao, which is not installed: pip install torchao, or take adamw_torch_fused"
        )
