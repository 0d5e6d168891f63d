"""Inherited arguments that would do nothing here are refused: an option that is silently ignored is a wrong result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

_COMPILE = "trunk and head are run apart, so a compiled whole model would not be called; compile the model's layers yourself"

EVERYWHERE: dict[str, str] = {
    "label_smoothing_factor": "no loss here reads it; where a loss knows label smoothing, its config has label_smoothing",
    **dict.fromkeys(("torch_compile", "torch_compile_backend", "torch_compile_mode"), _COMPILE),
    "enable_jit_checkpoint": "SIGTERM and SIGINT save at the next step by themselves, with an exit status that says so",
    "auto_find_batch_size": "it changes the effective batch on the way; a micro-batch that does not fit into memory is taken in "
    "parts without it, which leaves every number as it is",
}
ON_POLICY: dict[str, str] = {
    "neftune_noise_alpha": "noise in training but not in sampling would train on ratios that are not 1; leave it out",
    "train_sampling_strategy": "prompts of rollout i are a function of (seed, i); order the data itself, or set data_seed",
}
NO_REFERENCE: dict[str, str] = {"offload_reference": "there is no reference here"}


def refuse_unused(config: Any) -> None:
    """Raises ValueError for a value other than the default in a field that the config's class calls `unused`."""
    tables: list[Mapping[str, str]] = [base.__dict__.get("unused", {}) for base in type(config).__mro__]
    reasons = {name: why for table in reversed(tables) for name, why in table.items()}
    for f in fields(config):
        value = getattr(config, f.name)
        default = f.default if f.default is not MISSING else None
        if f.name in reasons and value not in (default, None):
            raise ValueError(
                f"{f.name}={value!r} would do nothing in {type(config).__name__}: {reasons[f.name]}"
            )
