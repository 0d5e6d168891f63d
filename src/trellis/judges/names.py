"""From the name of a judge to the judge."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .base import BasePairwiseJudge

HOW = (
    "the directory (or hub id) of a reward model or a causal language model, openai:MODEL for an OpenAI-compatible server, "
    "hf:MODEL for Hugging Face's inference providers, or pairrm"
)


def judge_named(
    name: str,
    *,
    base_url: str | None = None,
    api_key_env: str = "OPENAI_API_KEY",
    max_requests: int | None = 1_000,
    both_orders: bool = True,
    seed: int = 0,
    device: Any = None,
) -> BasePairwiseJudge:
    """The judge that `name` means: `HOW`. Raises ValueError where there is none, and for a base_url of what is no server."""
    kind, _, model = name.partition(":")
    if kind in ("openai", "hf") and not model:
        raise ValueError(f"--judge {name!r} names no model; expected {HOW}")
    if base_url is not None and kind != "openai":
        raise ValueError(f"a base_url belongs to a judge openai:MODEL, found {name!r}")
    if kind == "openai":
        from .endpoint import OpenAIPairwiseJudge

        return OpenAIPairwiseJudge(
            model,
            max_requests=max_requests,
            base_url=base_url,
            api_key_env=api_key_env,
            both_orders=both_orders,
            seed=seed,
        )
    if kind == "hf":
        from .endpoint import HfPairwiseJudge

        return HfPairwiseJudge(model, both_orders=both_orders, max_requests=max_requests, seed=seed)
    if name == "pairrm":
        from .pair_rm import PairRMJudge

        return PairRMJudge(both_orders=both_orders, seed=seed)
    return _local(name, both_orders, seed, device)


def _local(name: str, both_orders: bool, seed: int, device: Any) -> BasePairwiseJudge:
    from .local import CausalLMJudge, RewardModelJudge

    if _classifies(name):
        return RewardModelJudge(name, device=device)
    return CausalLMJudge(
        name, both_orders=both_orders, seed=seed, device=device, dtype="auto" if device else "float32"
    )


def _classifies(name: str) -> bool:
    """Whether there is a sequence classifier at `name`, or an adapter of one."""
    adapter = Path(os.path.expanduser(name)) / "adapter_config.json"
    if adapter.is_file():
        return json.loads(adapter.read_text(encoding="utf-8")).get("task_type") == "SEQ_CLS"
    from ..models.load import read_config

    kinds = read_config(name).architectures or []
    return any(kind.endswith("ForSequenceClassification") for kind in kinds)
