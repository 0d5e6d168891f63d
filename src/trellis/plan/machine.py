"""What this machine and a model are, as far as a recipe has to know."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .memory import FULL, Run, Shape, activations

GIB = 1 << 30
STATE_BYTES = 4 * FULL
"""Per trained parameter in float32: the weight, its gradient and AdamW's two moments."""

FROZEN_BYTES = FULL

USED = 0.8
"""The share of memory that a recipe may plan with."""


@dataclass(frozen=True)
class Machine:
    """The device that trains, its memory in bytes, and the CPU's cores."""

    device: str
    memory: int
    cores: int

    def __str__(self) -> str:
        return f"{self.device} with {self.memory / GIB:.0f} GiB, {self.cores} CPU cores"


@dataclass(frozen=True)
class ModelFacts:
    """A causal language model by its config: parameters, width, layers, and the positions it was trained for (0: not said)."""

    name: str
    parameters: int
    hidden: int
    layers: int
    positions: int

    @property
    def shape(self) -> Shape:
        """A Llama of this size."""
        inner = 8 * self.hidden // 3
        own = self.parameters // max(1, self.layers)
        return Shape(
            self.parameters, own, 0, self.layers, self.hidden, inner, self.hidden, self.hidden, vocab=0
        )


def this_machine() -> Machine:
    """The accelerator, or the CPU with the memory that this process may use."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if torch.cuda.is_available():
        return Machine(torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory, cores)
    return Machine("the CPU", _memory(), cores)


def _memory() -> int:
    found = (
        [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")] if hasattr(os, "sysconf") else [8 * GIB]
    )
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):  # of a container
        path = Path("/sys/fs/cgroup") / limit
        text = path.read_text().strip() if path.is_file() else ""
        if text.isdigit():
            found.append(int(text))
    return min(found)


def model_facts(name: str) -> ModelFacts:
    """The facts of the model in a directory or on the hub; no weights are read. Raises ValueError where there is none."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    base = base_of(name)
    try:
        config = AutoConfig.from_pretrained(base)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        said = str(error).strip().split("\n")[0]
        raise ValueError(f"--model {name}: no causal language model can be read there ({said})") from error
    text = config.get_text_config(decoder=True)
    return ModelFacts(
        name,
        sum(p.numel() for p in model.parameters()),
        text.hidden_size,
        text.num_hidden_layers,
        getattr(text, "max_position_embeddings", 0) or 0,
    )


def base_of(name: str) -> str:
    """The model itself, or the one below an adapter."""
    adapter = Path(name).expanduser() / "adapter_config.json"
    if not adapter.is_file():
        return name
    return json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]


def states(parameters: int, *, reference: bool, reward: bool = False, adapter: bool = False) -> int:
    """Bytes of weights, gradients and optimizer, without activations: of the policy (with an adapter, which is small, its base is
    also the reference), of a frozen reference and of a reward model of the same size."""
    frozen = (reference and not adapter) + reward
    return parameters * ((FROZEN_BYTES if adapter else STATE_BYTES) + frozen * FROZEN_BYTES)


def rows_at_once(free: float, facts: ModelFacts, tokens: int, *, recompute: bool) -> int:
    """Rows of `tokens` tokens whose activations fit into `free` bytes: a power of two, at least 1."""
    per_row = activations(facts.shape, Run(tokens=tokens, recompute=recompute))
    return 1 << max(0, int(free / max(1, per_row)).bit_length() - 1)
