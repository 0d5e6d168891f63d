"""How much memory the models of a run need on each process: arithmetic on sizes, in bytes.

What is counted: weights, gradients, the optimizer, what is gathered or copied to train on several processes, activations of
the micro-batch, the head's tiles, the keys and values of the rows that are sampled at once, and what scoring without gradients
takes. What is not: the CUDA context, the allocator's fragments, what other libraries hold (about 1 to 2 GiB per GPU together).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from ..scoring.tiles import TILE_ELEMENTS
from .shape import FULL, HALF, Shape

__all__ = ["FULL", "HALF", "SHARDINGS", "Memory", "Run", "Shape", "activations", "need", "ppo"]

SHARDINGS = ("ddp", "zero2", "zero3", "fsdp2")
HIDDEN = ("early", "late")
TILES = 3
"""Tiles alive at once: logits, their gradient, and what is between."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one process, by what they are for."""

    weights: float
    gradients: float
    optimizer: float
    copies: float
    frozen: float
    activations: float
    head: float
    sampling: float
    scoring: float
    early: float
    """Gradients that are there already while all activations are."""
    late: float
    """Activations that are still there when all gradients are."""

    @property
    def peak(self) -> float:
        """The most at once: while the policy is trained, or while it samples or scores (gradients are gone by then)."""
        stays = self.weights + self.optimizer + self.frozen
        begin = self.early + self.activations + self.head
        train = self.copies + max(begin, self.gradients + self.late)
        return stays + max(train, self.sampling, self.scoring)

    @property
    def parts(self) -> dict[str, float]:
        """{name: bytes} of what is reported."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in HIDDEN}

    def lines(self) -> list[str]:
        """One line per part, in GiB."""
        return [
            f"{name:<12} {value / 2**30:8.1f}" for name, value in [*self.parts.items(), ("peak", self.peak)]
        ]


@dataclass(frozen=True)
class Run:
    """What of a run its memory depends on.

    world: processes; adapter: trained numbers of a LoRA adapter (0: all weights are trained, as the critic's are);
    tokens: of a micro-batch; read: those whose log-probabilities are asked for (0: all);
    sampled: tokens of all rows that are sampled at once, prompts included;
    scored: tokens of the rows that are scored at once without gradients;
    critic: "model", "head" or "none"; whole_critic: it has no adapter;
    state: bytes of a trained number's weight, or gradient; moments: of what the optimizer keeps for it;
    base: of a number that is not trained; number: of an activation; tile: logits at once;
    accumulate: gradients of an earlier micro-batch are there; offload: activations wait in the CPU's memory;
    within: each parameter steps within backward and lets its gradient go;
    shared: a prompt is computed once for several answers.
    """

    sharding: str = "ddp"
    world: int = 1
    adapter: int = 0
    tokens: int = 4096
    read: int = 0
    sampled: int = 16384
    scored: int = 0
    critic: str = "model"
    whole_critic: bool = False
    recompute: bool = True
    accumulate: bool = False
    state: float = FULL
    moments: float = 2 * FULL
    base: float = FULL
    number: float = FULL
    offload: bool = False
    within: bool = False
    shared: bool = False
    tile: int = TILE_ELEMENTS["cpu"]


def ppo(policy: Shape, reward: Shape | None, run: Run) -> Memory:
    """PPO's memory on each process: policy, critic of the policy's size, reference (none beside an adapter), reward model."""
    frozen = [] if run.adapter else [policy]
    return need(policy, frozen + ([reward] if reward else []), run)


def need(policy: Shape, frozen: Sequence[Shape], run: Run) -> Memory:
    """The memory on each process of a policy (and a critic of its size), with models beside it that are not trained.

    Raises ValueError for a sharding that there is not.
    """
    if run.sharding not in SHARDINGS:
        raise ValueError(f"sharding={run.sharding!r} is none of {', '.join(SHARDINGS)}")
    own, of_critic = trained_numbers(policy, run)
    trained = own + of_critic
    cut = run.world if run.sharding in ("zero3", "fsdp2") else 1
    spread = run.world if run.sharding != "ddp" else 1
    each = _held(policy, own, run)
    held = each + (_held(policy, of_critic, run) if of_critic else 0)
    first, layer = _backward(policy, run)
    gradients = (policy.largest if run.within else trained) * _state(run) / spread
    end = (policy.embedding if not run.adapter else 0) * run.state / spread
    one = run.world == 1 and of_critic  # the policy's part goes back before the critic's goes forward
    before = end + (own * _state(run) if one else 0)
    graphs = 2 if of_critic and run.world > 1 else 1
    outside = run.tokens * policy.hidden * run.number * 2
    whole = each if cut > 1 and run.sampled else 0
    early = gradients if run.accumulate else min(before, gradients)
    scoring = run.scored * policy.forward * run.number
    return Memory(
        weights=held / cut,
        gradients=gradients,
        optimizer=trained * _optimizer(run),
        copies=_copies(policy, trained, run),
        frozen=sum(shape.parameters for shape in frozen)
        * run.base
        / (run.world if run.sharding == "zero3" else 1),
        activations=graphs * first + layer + outside,
        head=_head(policy, run),
        sampling=whole + run.sampled * policy.layers * 2 * policy.kv * run.number,
        scoring=scoring,
        early=early,
        late=layer + outside,
    )


def trained_numbers(policy: Shape, run: Run) -> tuple[int, int]:
    """(of the policy, of a critic of its size) how many numbers are trained."""
    own = run.adapter or policy.parameters
    critic = policy.parameters if run.whole_critic else own
    return own, critic if run.critic == "model" else 0


def _held(policy: Shape, trained: int, run: Run) -> float:
    """Bytes of a model's weights, with its adapter where it has one."""
    if trained == policy.parameters:
        return trained * run.state
    return policy.parameters * run.base + trained * FULL


def _state(run: Run) -> float:
    return FULL if run.adapter else run.state


def _optimizer(run: Run) -> float:
    """Bytes per trained number: two moments of AdamW, and DeepSpeed's own copy of what is trained."""
    if run.sharding == "ddp":
        return run.moments
    own = FULL if run.sharding.startswith("zero") else 0
    return (run.moments + own) / run.world


def _copies(policy: Shape, trained: int, run: Run) -> float:
    """What sending takes: DDP's buckets, ZeRO-2's gradients before they are cut, the layer that is gathered and the next one;
    and weights that autocast has cast."""
    cast = policy.parameters * HALF if run.number < FULL == run.state else 0
    if run.world == 1:
        return cast
    if run.sharding in ("ddp", "zero2"):
        return cast + trained * _state(run)
    return 2 * policy.largest * run.state * 2  # weights and gradients


def _head(policy: Shape, run: Run) -> float:
    """The tiles of the vocabulary's head, and its hidden states with their gradient."""
    read = run.read or run.tokens
    return TILES * min(run.tile, read * policy.vocab) * FULL + 2 * read * policy.hidden * FULL


def activations(shape: Shape, run: Run) -> float:
    """Bytes that the backward pass of a micro-batch needs: every layer's input, or all that it keeps, and what one layer has at
    once while it is gone back through.

    Counted in scoring without padding; adapters need less: the inputs of matrices that are not trained are not kept.
    """
    return sum(_backward(shape, run))


def _backward(shape: Shape, run: Run) -> tuple[float, float]:
    """(of all layers, of the one that is gone back through), in bytes."""
    cpu, cast = run.tile == TILE_ELEMENTS["cpu"], run.number < FULL == run.state
    if run.recompute:
        kept, unread = shape.hidden, 0
        at_once = shape.kept(adapter=False, thrifty=False, cpu=cpu) + shape.at_once
    else:
        kept = shape.kept(adapter=run.adapter > 0, cast=cast, cpu=cpu)
        kept, at_once = kept + 2 * shape.q * (run.shared and not cpu), shape.at_once
        unread = (run.tokens - (run.read or run.tokens)) * shape.inner(
            True
        )  # of the last layer (scoring/last_layer.py)
    kept_in_all = 0 if run.offload else run.tokens * shape.layers * kept - unread
    return kept_in_all * run.number, run.tokens * at_once * run.number
