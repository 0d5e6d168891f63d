"""The sums and counts of a run that the loop below keeps in memory only: a resumed run needs them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def running_state(trainer: Any) -> dict[str, Any]:
    """As JSON values."""
    logging = {
        "tr_loss": trainer._tr_loss.item(),
        "total_loss": trainer._total_loss_scalar,
        "last_logged": trainer._globalstep_last_logged,
        "initial_step": getattr(trainer, "_initial_global_step", 0),  # transformers 5.17 has none
    }
    faults = {"bad_steps": trainer.bad_steps.count, "rows_at_once": trainer.memory.rows}
    return {"logging": logging, "meter": trainer.meter.state_dict(), "faults": faults}


def callback_tensors(trainer: Any) -> dict[str, Tensor]:
    """Those of callbacks that keep any (a method `kept_tensors`), under the callbacks' names."""
    return {
        f"{_name(callback)}.{name}": tensor
        for callback in _keeping(trainer)
        for name, tensor in callback.kept_tensors().items()
    }


def _keeping(trainer: Any) -> list[Any]:
    return [c for c in trainer.callback_handler.callbacks if hasattr(c, "kept_tensors")]


def _name(callback: Any) -> str:
    return f"callback.{type(callback).__name__}"


def load_running(trainer: Any, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    """The inverse of `callback_tensors` and `running_state`."""
    for callback in _keeping(trainer):
        prefix = f"{_name(callback)}."
        found = {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
        if found:
            callback.load_tensors(found)
    logging, faults = plain["logging"], plain.get("faults", {})
    trainer._tr_loss.fill_(logging["tr_loss"])
    trainer._total_loss_scalar = logging["total_loss"]
    trainer._globalstep_last_logged = logging["last_logged"]
    trainer._initial_global_step = logging["initial_step"]
    trainer.meter.load_state_dict(plain["meter"])
    trainer.bad_steps.count = faults.get("bad_steps", 0)
    alone = trainer.args.world_size == 1  # several processes must cut alike, and each found its own number
    trainer.memory.rows = faults.get("rows_at_once") if alone else None


def tokens_in(batch: Any, kind: str) -> Tensor:
    """Scalar: the batch's positions ("all"), or those with a token ("non_padding")."""
    mask = getattr(batch, "tokens", batch).attention_mask
    return mask.sum() if kind == "non_padding" else torch.tensor(mask.numel(), device=mask.device)


def operations(model: nn.Module, batch: Any) -> int:
    """Multiplications and additions of a forward and backward pass, about: 6 per token and weight."""
    tokens = getattr(batch, "tokens", batch)
    return 6 * int(tokens.attention_mask.sum()) * sum(p.numel() for p in model.parameters())
