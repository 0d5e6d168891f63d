"""How much memory PPO's models need on each process: arithmetic on sizes, in bytes.

What is counted: weights, gradients, AdamW's two moments, what is gathered or copied to train on several processes, activations of
the micro-batch, the keys and values of the rows that are sampled at once. What is not: the CUDA context, the allocator's
fragments, what other libraries hold (about 1 to 2 GiB per GPU together).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

SHARDINGS = ("ddp", "zero2", "zero3", "fsdp2")
FULL, HALF = 4, 2
"""Bytes of a number in float32, and in bfloat16."""


@dataclass(frozen=True)
class Shape:
    """What of a model its memory depends on. parameters: all of them; largest: those of its largest part that is gathered at once
    (a layer, or an embedding); q, kv: the widths of all query and of all key heads."""

    parameters: int
    largest: int
    layers: int
    hidden: int
    intermediate: int
    q: int
    kv: int

    @classmethod
    def of(cls, config: Any) -> Shape:
        """The shape of the causal language model that a transformers config describes; nothing is allocated."""
        import torch
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        sizes = [sum(p.numel() for p in part.parameters()) for part in _parts(model)]
        text = config.get_text_config()
        heads = text.num_attention_heads
        width = getattr(text, "head_dim", None) or text.hidden_size // heads
        return cls(
            parameters=sum(p.numel() for p in model.parameters()),
            largest=max(sizes),
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
            q=heads * width,
            kv=(getattr(text, "num_key_value_heads", None) or heads) * width,
        )


def _parts(model: Any) -> list[Any]:
    """The model's layers and what stands outside of them."""
    import torch

    layers = max((m for m in model.modules() if isinstance(m, torch.nn.ModuleList)), key=len)
    ends = [m for m in model.modules() if isinstance(m, torch.nn.Embedding | torch.nn.Linear)]
    return [*layers, *ends]


@dataclass(frozen=True)
class Memory:
    """Bytes on one process, by what they are for."""

    weights: float
    gradients: float
    optimizer: float
    copies: float
    frozen: float
    activations: float
    sampling: float

    @property
    def peak(self) -> float:
        """The most at once: while the policy is trained, or while it samples (gradients are gone by then)."""
        stays = self.weights + self.optimizer + self.frozen
        return stays + max(self.gradients + self.copies + self.activations, self.sampling)

    def lines(self) -> list[str]:
        """One line per part, in GiB."""
        named = [(f.name, getattr(self, f.name)) for f in fields(self)]
        return [f"{name:<12} {value / 2**30:8.1f}" for name, value in [*named, ("peak", self.peak)]]


@dataclass(frozen=True)
class Run:
    """What of a run its memory depends on.

    world: processes; adapter: trained numbers of a LoRA adapter (0: all weights are trained, as the critic's are); tokens: of a
    micro-batch; sampled: tokens of all rows that are sampled at once, prompts included; critic: "model" or "head"; half: frozen
    weights are held in bfloat16. Activations are float32 (bfloat16 autocast takes about half, and copies of the weights).
    """

    sharding: str = "ddp"
    world: int = 1
    adapter: int = 0
    tokens: int = 4096
    sampled: int = 16384
    critic: str = "model"
    recompute: bool = True
    half: bool = False


def ppo(policy: Shape, reward: Shape | None, run: Run) -> Memory:
    """PPO's memory on each process: policy, critic of the policy's size, reference (none beside an adapter), reward model."""
    if run.sharding not in SHARDINGS:
        raise ValueError(f"sharding={run.sharding!r} is none of {', '.join(SHARDINGS)}")
    models = 2 if run.critic == "model" else 1
    trained = models * (run.adapter or policy.parameters)
    base = FULL if not (run.half and run.adapter) else HALF
    cut = run.world if run.sharding in ("zero3", "fsdp2") else 1
    held = models * policy.parameters * base + (models * run.adapter * FULL if run.adapter else 0)
    frozen = (0 if run.adapter else policy.parameters) + (reward.parameters if reward else 0)
    whole = policy.parameters * base if cut > 1 else 0
    return Memory(
        weights=held / cut,
        gradients=trained * FULL / (run.world if run.sharding != "ddp" else 1),
        optimizer=trained * _optimizer(run),
        copies=_copies(policy, trained, run),
        frozen=frozen * (HALF if run.half else FULL) / (run.world if run.sharding == "zero3" else 1),
        activations=activations(policy, run),
        sampling=whole + run.sampled * policy.layers * 2 * policy.kv * FULL,
    )


def _optimizer(run: Run) -> float:
    """Bytes per trained number: two moments, and DeepSpeed's own copy of what is trained."""
    if run.sharding == "ddp":
        return 2 * FULL
    own = FULL if run.sharding.startswith("zero") else 0
    return (2 * FULL + own) / run.world


def _copies(policy: Shape, trained: int, run: Run) -> float:
    """What sending takes: DDP's buckets, ZeRO-2's gradients before they are cut, the layer that is gathered and the next one."""
    if run.world == 1:
        return 0
    if run.sharding in ("ddp", "zero2"):
        return trained * FULL
    return 2 * policy.largest * FULL * 2  # weights and gradients


def activations(shape: Shape, run: Run) -> float:
    """Bytes that the backward pass of a micro-batch needs: every layer's input, or all that it keeps, and what one layer has at
    once while it is gone back through. On several processes policy and critic go back together.

    Counted on Llama's layers in scoring without padding; adapters alone need less.
    """
    kept = 5 * shape.hidden + 4 * shape.q + 2 * shape.intermediate
    at_once = 3 * shape.intermediate
    if run.recompute:
        kept, at_once = shape.hidden, kept + at_once
    graphs = 2 if run.critic == "model" and run.world > 1 else 1
    return run.tokens * (graphs * shape.layers * kept + at_once) * FULL
