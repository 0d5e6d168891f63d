"""An adapter folded into its base: one stock model that needs no peft."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .load import dtype_of, load_causal_lm, load_classifier, load_tokenizer
from .modules import base_causal_lm

SETTINGS = "adapter_config.json"
PROBE = (16, 3)
LIMITS = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.02}


def merge_adapter(
    adapter: str | os.PathLike, out: str | os.PathLike, *, dtype: str | torch.dtype = "auto"
) -> float:
    """Write the model that the adapter in directory `adapter` makes of its base to the new directory `out`, with its tokenizer.

    Folded in float32 and stored in `dtype` ("auto": as the base is stored). What was written is opened again and compared:
    returns the largest difference of a log-probability (a classifier: score) from the adapter on its base, in float32. Raises
    ValueError for a directory without an adapter, or an `out` that is not empty; RuntimeError, leaving nothing behind, when the
    two differ by more than rounding to `dtype` explains.
    """
    adapter, out = Path(adapter).expanduser(), Path(out).expanduser()
    if not (adapter / SETTINGS).is_file():
        raise ValueError(f"{adapter} holds no {SETTINGS}; expected a directory that an adapter was saved in")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not empty; name a new directory")
    tokenizer = _tokenizer(adapter)
    load = _loader(adapter)
    model = load(adapter, {"dtype": "float32"}).eval()
    want = _answers(model)
    stored = dtype_of(dtype) if dtype != "auto" else _stored(model)
    merged = model.merge_and_unload(safe_merge=True).to(stored)
    aside = out.with_name(f"{out.name}.unfinished")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        merged.save_pretrained(aside)
        if tokenizer is not None:
            tokenizer.save_pretrained(aside)
        found = _answers(load(aside, {"dtype": stored}).eval())
        worst = float((found - want).abs().max())
        if not worst <= LIMITS.get(stored, 1e-3) * max(1.0, float(want.abs().max())):
            raise RuntimeError(
                f"the merged model differs from the adapter on its base by {worst:.3g}; nothing was kept. Try dtype='float32'"
            )
        if out.is_dir():
            out.rmdir()
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return worst


def _loader(adapter: Path) -> Any:
    from peft import PeftConfig

    task = str(PeftConfig.from_pretrained(str(adapter)).task_type)
    return load_classifier if task.endswith("SEQ_CLS") else load_causal_lm


def _tokenizer(adapter: Path) -> Any:
    """The adapter's tokenizer, else its base's; None where neither has one."""
    try:
        return load_tokenizer(None, adapter)
    except ValueError:
        return None


def _stored(model: Any) -> torch.dtype:
    """The type that the base is stored in; float32 where it does not say."""
    from transformers import AutoConfig

    name = base_causal_lm(model).config._name_or_path
    return getattr(AutoConfig.from_pretrained(name), "dtype", None) or torch.float32


@torch.no_grad()
def _answers(model: Any) -> Tensor:
    """Log-probabilities (or scores) of a fixed text."""
    vocabulary = base_causal_lm(model).config.get_text_config().vocab_size
    length, stride = PROBE
    ids = torch.arange(1, 1 + stride * length, stride)[None] % vocabulary
    logits = model(input_ids=ids.to(model.device)).logits.float()
    return logits.log_softmax(-1) if logits.dim() == 3 else logits
