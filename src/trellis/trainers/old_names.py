"""Old spellings of config fields: what became of each, and how to read one.

Same meaning → taken, with a FutureWarning that names the new spelling; another meaning → TypeError that says
what to write and why; unknown → TypeError with the closest name.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any


@dataclass(frozen=True)
class Old:
    """What became of an old name. `new` takes its value through `convert`; without `new`, `harmless`
    values (all, if None) are dropped and others refused. `why` says what to write today."""

    new: str | None = None
    convert: Callable[[Any], Any] | None = None
    harmless: tuple[Any, ...] | None = None
    why: str = ""


def renamed(new: str, convert: Callable[[Any], Any] | None = None) -> Old:
    """The same thing under a new name; `convert` turns the old value into the new (or raises ValueError)."""
    return Old(new=new, convert=convert)


def needless(why: str) -> Old:
    """Accepted and no longer needed."""
    return Old(why=why)


def refused(why: str, harmless: tuple[Any, ...] = (None,)) -> Old:
    """Only the `harmless` values (they never did anything) are accepted; any other is an error that says `why`."""
    return Old(harmless=harmless, why=why)


def _ratio(value: Any) -> float:
    if not 0 <= float(value) < 1:
        raise ValueError(f"warmup_ratio must be at least 0 and below 1, found {value}")
    return float(value)


def _sampling(value: Any) -> str:
    return "group_by_length" if value else "random"


def _optimizer(value: Any) -> str:
    return "adafactor" if value else "adamw_torch_fused"


def _organization(value: Any) -> str:
    raise ValueError(f'write hub_model_id="{value}/NAME"')


def _inputs(value: Any) -> list[str]:
    return ["inputs"] if value else []


def _tensorboard(value: Any) -> Any:
    if value is not None:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(value)
    return None


_OFF = (None, False)
_AMP = "mixed precision has one implementation now; choose it with bf16 or fp16"
_FSDP = 'write fsdp_config={"%s": …}'

HF_OLD_NAMES: dict[str, Old] = {
    "warmup_ratio": renamed("warmup_steps", _ratio),
    "no_cuda": renamed("use_cpu"),
    "group_by_length": renamed("train_sampling_strategy", _sampling),
    "evaluation_strategy": renamed("eval_strategy"),
    "adafactor": renamed("optim", _optimizer),
    "per_gpu_train_batch_size": renamed("per_device_train_batch_size"),
    "per_gpu_eval_batch_size": renamed("per_device_eval_batch_size"),
    "push_to_hub_model_id": renamed("hub_model_id"),
    "push_to_hub_token": renamed("hub_token"),
    "push_to_hub_organization": renamed("hub_model_id", _organization),
    "torchdynamo": renamed("torch_compile_backend"),
    "include_inputs_for_metrics": renamed("include_for_metrics", _inputs),
    "include_tokens_per_second": refused('write include_num_input_tokens_seen="all"', _OFF),
    "logging_dir": Old(convert=_tensorboard, why="TENSORBOARD_LOGGING_DIR was set to it for TensorBoard"),
    "overwrite_output_dir": needless("a run continues an old one only with resume_from_checkpoint"),
    "use_mps_device": needless("the machine's accelerator is found by itself"),
    "save_safetensors": refused("weights are always written as safetensors", (True, None)),
    "jit_mode_eval": refused("write torch_compile=True", _OFF),
    "use_legacy_prediction_loop": refused("there is one evaluation loop", _OFF),
    "fp16_opt_level": refused(_AMP, (None, "O1")),
    "fp16_backend": refused(_AMP, (None, "auto", "amp", "cuda_amp")),
    "half_precision_backend": refused(_AMP, (None, "auto", "amp", "cuda_amp", "cpu_amp")),
    "tpu_num_cores": refused("start the processes with a launcher"),
    "tpu_metrics_debug": refused('write debug="tpu_metrics_debug"', _OFF),
    "past_index": refused("models keep no past between batches", (None, -1)),
    "fsdp_min_num_params": refused(_FSDP % "min_num_params", (None, 0)),
    "fsdp_transformer_layer_cls_to_wrap": refused(_FSDP % "transformer_layer_cls_to_wrap"),
    "mp_parameters": refused("SageMaker model parallelism is gone", (None, "")),
    "ray_scope": refused("pass the scope to hyperparameter_search", (None, "last")),
}


def old_names(cls: type) -> dict[str, Old]:
    """What `cls` understands besides its fields: each `renamed` table up its class tree."""
    table: dict[str, Old] = {}
    for base in reversed(cls.__mro__):
        for old, entry in base.__dict__.get("renamed", {}).items():
            table[old] = renamed(entry) if isinstance(entry, str) else entry
    return {old: entry for old, entry in table.items() if old not in cls.__dataclass_fields__}  # type: ignore[attr-defined]


def closest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean …?"`, or nothing when no known name is near."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def replacement(cls: type, name: str, value: Any) -> tuple[str, Any] | None:
    """(new name, new value) of the old field `name`, or None where it is no longer needed; says so in a FutureWarning.

    Raises TypeError when the value has no counterpart.
    """
    entry = old_names(cls)[name]
    if entry.harmless is not None and value not in entry.harmless:
        raise TypeError(f"{cls.__name__}: {name}={value!r} is not accepted any more: {entry.why}")
    try:
        value = entry.convert(value) if entry.convert else value
    except ValueError as error:
        raise TypeError(f"{cls.__name__}: {name}={value!r} is not accepted: {error}") from error
    if entry.harmless is None:
        says = f"is now {entry.new}={value!r}" if entry.new else f"is no longer needed: {entry.why}"
        warnings.warn(f"{cls.__name__}: {name} {says}", FutureWarning, stacklevel=4)
    return (entry.new, value) if entry.new else None


def translate(cls: type, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """`keywords` with old names replaced by today's. Raises TypeError for an unknown one."""
    names, table = {f.name for f in fields(cls) if f.init}, old_names(cls)
    result = {name: value for name, value in keywords.items() if name in names}
    for name in keywords:
        if name in names:
            continue
        if name not in table:
            raise TypeError(f"{cls.__name__} has no field {name!r}{closest(name, [*names, *table])}")
        found = replacement(cls, name, keywords[name])
        if found is None:
            continue
        new, value = found
        if new in result and result[new] != value:
            raise TypeError(f"{cls.__name__}: {name!r} is the old name of {new!r}; give only one of them")
        result[new] = value
    return result
