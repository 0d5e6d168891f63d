"""From DPOTrainer's arguments to its parts: tokenizer, pairs, policy, reference. Every mismatch is one error, early."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from transformers import set_seed

from ..data import DataReport, prepare_pairs
from ..data.templates import adapted_tokenizer
from ..models import (
    Reference,
    choose_adapter,
    disable_dropout,
    fit_embeddings,
    is_peft,
    learned_positions,
    load_causal_lm,
    load_tokenizer,
)
from .dpo_config import DPOConfig
from .follow import check_follows


def pair_tokenizer(processing_class: Any, model: Any, pad_token: str | None) -> Any:
    """The tokenizer, with the padding token asked for."""
    return adapted_tokenizer(load_tokenizer(processing_class, model), pad_token=pad_token)


def pair_data(
    data: Any, tokenizer: Any, args: Any, name: str, reports: dict[str, DataReport], tools: Any = None
) -> Any:
    """Prepared pairs of a data set, of each of a dict of them, or None; `reports` gains one entry per data set."""
    if data is None:
        return None
    if isinstance(data, Mapping) and name != "train_dataset":
        return {
            key: pair_data(part, tokenizer, args, f"{name}[{key!r}]", reports, tools)
            for key, part in data.items()
        }
    with args.main_process_first(desc=f"preparing {name}"):
        prepared, reports[name] = prepare_pairs(
            data,
            tokenizer,
            max_length=args.max_length,
            max_prompt_length=args.max_prompt_length,
            max_completion_length=args.max_completion_length,
            truncation_mode=args.truncation_mode,
            tools=tools,
            num_proc=args.dataset_num_proc,
            name=name,
        )
    return prepared


def mapped(data: Any, change: Callable[[Any, str], Any], name: str = "eval_dataset") -> Any:
    """change(data set, its name), of each of a dict of them; None stays None."""
    if data is None:
        return None
    if isinstance(data, Mapping):
        return {key: change(part, f"{name}[{key!r}]") for key, part in data.items()}
    return change(data, name)


def check_reference(model: Any, ref_model: Any, peft_config: Any, args: DPOConfig) -> None:
    """Raises ValueError for a reference that cannot be one, before anything is loaded."""
    if ref_model is not None and ref_model is model and not isinstance(model, str):
        raise ValueError(
            "ref_model is the model that is trained, so it would follow it; pass ref_model=None for a frozen copy (with "
            "peft_config: the model without its adapter), or load the reference a second time"
        )
    if ref_model is not None and args.reference_free:
        raise ValueError(
            "reference_free=True uses no reference, but ref_model is given; leave one of them out"
        )
    adapter = peft_config is not None or is_peft(model)
    if ref_model is not None and adapter and not args.force_use_ref_model:
        raise ValueError(
            "the policy has an adapter, so its base is the reference and costs no memory; found ref_model as well. Leave "
            "ref_model out, or write DPOConfig(force_use_ref_model=True) to use it."
        )
    if args.force_use_ref_model and ref_model is None:
        raise ValueError("force_use_ref_model=True needs a ref_model=…; found None")
    if args.ref_model_init_kwargs and not isinstance(ref_model, str):
        raise ValueError(
            "ref_model_init_kwargs say how to load ref_model, which must then be a name; found "
            f"{type(ref_model).__name__}"
        )


def build_policy(model: Any, args: DPOConfig, tokenizer: Any, peft_config: Any) -> nn.Module:
    """The model to train, with its adapter, without dropout where that is asked."""
    init: Any = args.model_init_kwargs
    set_seed(args.seed)  # a fresh adapter is drawn before the loop sets it
    model = load_causal_lm(model, init)
    fit_embeddings(model, tokenizer, peft_config)
    model = model if peft_config is None else load_causal_lm(model, peft_config=peft_config)
    if args.disable_dropout:
        disable_dropout(model)
    return model


def build_reference(policy: nn.Module, ref_model: Any, args: DPOConfig) -> Reference | None:
    """The reference, to be made before the policy is trained; None where there is none."""
    if args.reference_free:
        choose_adapter(policy, args.model_adapter_name)
        return None
    init: Any = args.ref_model_init_kwargs
    given = load_causal_lm(ref_model, init) if isinstance(ref_model, str) else ref_model
    names = {"ref_adapter_name": args.ref_adapter_name, "model_adapter_name": args.model_adapter_name}
    untouched = given is None and args.ref_adapter_name is None and not is_peft(policy)
    if args.precompute_ref_log_probs and untouched and args.model_adapter_name is None:
        return Reference("model", policy)  # read once, now, before the first step: no copy
    reference = Reference.of(policy, given, **names)
    if args.disable_dropout and reference.model is not None:
        disable_dropout(reference.model)
    if args.sync_ref_model:
        check_follows(reference, policy)
    return reference


def check_positions(model: nn.Module, rows: Any, name: str, config: str) -> None:
    """Raises ValueError for a pair that is longer than the positions a model has learned (rotary ones do not end)."""
    limit = learned_positions(model)
    if not limit or not hasattr(rows, "__len__"):
        return
    for i in range(len(rows)):
        row = rows[i]
        longest = len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
        if longest > limit:
            raise ValueError(
                f"{name}: pair {i} has {longest} tokens, but {type(model).__name__} has learned {limit} positions. Write "
                f"{config}(max_length={limit})."
            )
