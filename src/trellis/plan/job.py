"""A training run as far as its memory and its time depend on it: models, tokens, and how they are cut into steps."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..scoring.tiles import TILE_ELEMENTS
from .memory import FULL, HALF, Memory, Run, need
from .reading import Reading, sequences
from .shape import Shape

ONLINE = ("ppo", "grpo", "rloo")
PAIRED = ("reward", "dpo", "orpo", "cpo")
SEED = 0


@dataclass(frozen=True)
class Item:
    """A row of the data as a micro-batch holds it: tokens that go through the model (a prompt that two answers share counts
    once), and those that are predicted."""

    tokens: int
    read: int


@dataclass(frozen=True)
class Job:
    """What is trained on what. items: the rows that were looked at; rows: how many there are in all; frozen: {what it is for: its
    shape}; prompt, answer: the longest ones that are sampled from and sampled (online only); samples: answers per prompt;
    forward_rows: rows scored at once without gradients; passes: times that a sampled row is trained on; episodes: sampled rows in
    the run (0: by epochs); minibatches: optimizer steps per pass over a rollout.
    """

    method: str
    policy: Shape
    items: tuple[Item, ...]
    rows: int
    frozen: Mapping[str, Shape] = field(default_factory=dict)
    adapter: int = 0
    critic: str = "none"
    micro: int = 8
    accumulation: int = 1
    epochs: float = 1
    max_steps: int = 0
    most_tokens: int = 0
    answer: int = 0
    samples: int = 1
    forward_rows: int = 0
    rollout_rows: int = 0
    minibatches: int = 1
    passes: int = 1
    episodes: int = 0
    remote: bool = False
    run: Run = field(default_factory=Run)

    @property
    def online(self) -> bool:
        """Whether the policy learns from what it samples."""
        return self.method in ONLINE

    @property
    def parts(self) -> int:
        """Micro-batches per optimizer step on one process."""
        return max(1, self.accumulation // self.minibatches)

    def fullest(self, rows: int | None = None) -> Item:
        """The most tokens that a micro-batch of an epoch holds, in one random order; with `most_tokens`, of its parts."""
        rows = rows or self.micro
        if self.online:
            return self._sampled(rows)
        order = list(self.items)
        random.Random(SEED).shuffle(order)
        groups = [order[i : i + rows] for i in range(0, len(order), rows)]
        parts = [_sum(part) for group in groups for part in _parts(group, self.most_tokens)]
        return max(parts, key=lambda item: item.tokens)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(item.tokens for item in self.items)

    def _sampled(self, rows: int) -> Item:
        prompts = sorted((item.tokens for item in self.items), reverse=True)
        groups = -(-rows // self.samples)
        read = rows * self.answer
        return Item(sum((prompts * groups)[:groups]) + read, read)

    def settled(self, sharding: str = "ddp", world: int = 1, rows: int | None = None) -> Run:
        """What the arithmetic of memory reads."""
        batch = self.fullest(rows)
        sampled, scored = 0, batch.tokens * bool(self.frozen)
        if self.online:
            whole = max(self.rollout_rows, rows or 0)
            scored = self._sampled(min(self.forward_rows or self.micro, whole)).tokens
            at_once = whole if self.method != "ppo" else min(self.forward_rows, whole)
            sampled = 0 if self.remote else self._sampled(at_once).tokens
        parts = self.parts > 1 or (rows is not None and rows < self.micro) or 0 < self.most_tokens
        return replace(
            self.run,
            sharding=sharding,
            world=world,
            adapter=self.adapter,
            tokens=batch.tokens,
            read=1 if self.method == "reward" else batch.read,
            sampled=sampled,
            scored=scored,
            critic=self.critic,
            accumulate=parts,
            shared=self.method in PAIRED or self.samples > 1,
        )

    def memory(self, sharding: str = "ddp", world: int = 1, rows: int | None = None) -> Memory:
        """On each process, with micro-batches of `rows` (default: those of the job)."""
        return need(self.policy, tuple(self.frozen.values()), self.settled(sharding, world, rows))

    def most_rows(self, room: float, sharding: str = "ddp", world: int = 1) -> int:
        """The largest micro-batch, a power of two, whose peak is at most `room` bytes; 0 where not even one row fits. More rows
        than an epoch has are not tried; a rollout has at least one micro-batch."""
        most = max(self.rollout_rows, self.rows * self.samples) if self.online else self.rows
        sizes = [n for n in (1 << i for i in range(16)) if n == 1 or n <= most]
        fits = [n for n in sizes if self.memory(sharding, world, n).peak <= room]
        return max(fits, default=0)

    # ---- how much there is to do -----------------------------------------------------------------------------------------

    def steps(self, world: int = 1) -> int:
        """Optimizer steps of the run."""
        if self.max_steps > 0:
            return self.max_steps
        if not self.online:
            per_epoch = math.ceil(self.rows / (self.micro * self.accumulation * world))
            return math.ceil(per_epoch * self.epochs)
        rows = self.episodes or self.epochs * self.rows * self.samples
        return math.ceil(rows / (self.rollout_rows * world)) * self.minibatches * self.passes

    def trained_rows(self, world: int = 1) -> float:
        """Rows that go forward and back, over all passes and processes."""
        per_step = self.micro * self.parts * world
        rows = self.steps(world) * per_step
        return rows if self.online else min(rows, math.ceil(self.epochs) * self.rows)

    @property
    def mean(self) -> Item:
        """A row on average."""
        total, count = _sum(self.items), len(self.items)
        if self.online:
            return Item(total.tokens // count // self.samples + self.answer, self.answer)
        return Item(max(1, total.tokens // count), max(1, total.read // count))


def _parts(group: Sequence[Item], most: int) -> list[list[Item]]:
    """Consecutive rows of a micro-batch of at most `most` tokens together (0: all); a longer row stands alone."""
    found: list[list[Item]] = [[]]
    for item in group:
        if most and found[-1] and sum(i.tokens for i in found[-1]) + item.tokens > most:
            found.append([])
        found[-1].append(item)
    return found


def _sum(items: Sequence[Item]) -> Item:
    return Item(sum(item.tokens for item in items), sum(item.read for item in items))


def items_of(reading: Reading, args: Any) -> tuple[Item, ...]:
    """The rows that a trainer makes micro-batches of. Raises ValueError where there is none."""
    if not reading.prepared:
        raise ValueError(f"{reading.fault or 'no row is left'} (look closer with: trellis check DATA)")
    if getattr(args, "packing", False):
        from ..data.pack import pack

        packed = pack(reading.prepared, args.max_length, args.packing_strategy)
        return tuple(Item(len(row["input_ids"]), sum(row["loss_mask"])) for row in packed)
    found = []
    for row in reading.prepared:
        rows = sequences(row, reading.family)
        again = rows[0].prompt_len * (len(rows) - 1)
        found.append(Item(sum(len(r.ids) for r in rows) - again, sum(sum(r.mask) for r in rows)))
    return tuple(found)


def run_of(args: Any, *, weights: str | None, quantized: float = 0.0) -> Run:
    """How numbers are held. weights: the type of the model's weights in memory (None: float32); quantized: bytes of a quantised
    one."""
    half = weights in ("bfloat16", "float16")
    state = HALF if half else FULL
    return Run(
        recompute=bool(args.gradient_checkpointing),
        state=state,
        moments=moments(str(getattr(args.optim, "value", args.optim)), state),
        base=quantized or state,
        number=HALF if half or args.bf16 or args.fp16 else FULL,
        offload=bool(getattr(args, "activation_offloading", False)) and args.device.type != "cpu",
        tile=TILE_ELEMENTS.get(args.device.type, TILE_ELEMENTS["cuda"]),
        within=bool(getattr(args, "optimizer_in_backward", False)),
    )


def moments(optim: str, state: float) -> float:
    """Bytes that an optimizer keeps per trained number."""
    if "8bit" in optim:
        return 2 if "adam" in optim else 1
    if "adafactor" in optim or optim == "sgd":
        return 0
    return state if "lion" in optim or "rmsprop" in optim or "adagrad" in optim else 2 * state
