"""Base weights in 8 or 4 bits (bitsandbytes), on which adapters are trained: QLoRA, Dettmers et al. 2023 (2305.14314)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from torch import nn

from .modules import base_causal_lm


def is_quantized(model: nn.Module) -> bool:
    """Whether the base weights of `model` are held in fewer bits than they are computed in."""
    return bool(getattr(base_causal_lm(model), "is_quantized", False))


def require_bitsandbytes(
    asked: str, instead: str = "leave it out to hold the base weights as they are"
) -> None:
    """Raises ImportError saying what to install, or do, where bitsandbytes is missing; `asked`: what needs it."""
    if find_spec("bitsandbytes") is None:
        raise ImportError(
            f'{asked} needs bitsandbytes, which is not installed: pip install "trellis-rl[bnb]", or {instead}'
        )


def check_quantization(settings: Any) -> None:
    """Raises ImportError where a `quantization_config` (an object or a dict) asks for bitsandbytes and there is none."""
    read = settings.get if isinstance(settings, dict) else lambda name: getattr(settings, name, None)
    for name in ("load_in_4bit", "load_in_8bit"):
        if read(name):
            require_bitsandbytes(f"quantization_config with {name}")


def made_trainable(model: nn.Module) -> nn.Module:
    """A quantised model, frozen, with all it holds in 16 bits in float32; any other itself.

    Whoever switches gradient checkpointing on sees to the gradients of its inputs.
    """
    if not is_quantized(model):
        return model
    from peft import prepare_model_for_kbit_training

    for module in model.modules():
        # On CPUs with AVX-512, one pass without gradients turns 4-bit weights into a form whose gradients are dropped in silence.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
