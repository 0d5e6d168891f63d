"""The next rollout is sampled while this one is trained on: one behind, always by the same weights.

Rollouts 0 and 1 are sampled with the weights of the start, rollout i + 1 with those at which training on rollout i begins,
whoever is faster: a run depends on its seed alone. What was sampled so is off-policy. It is scored by the policy that begins to
train on it (the proximal policy), and what is learned of it weighs π_proximal/π_behaviour.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..agents import RolloutFunc
from ..engines import ProcessEngine
from ..losses.correction import correction
from ..metrics import Metric
from ..models.sharded import whole
from ..rollout import Completion, Driver, Engine, Episodes, InProcess, spread, to_batch
from ..types import Rollout
from .group_metrics import CORRECTION, correction_sums

logger = logging.getLogger(__name__)
STALENESS = Metric(
    "sampling/staleness",
    "optimizer steps between the weights that sampled a rollout and those it is first trained on",
    hold=True,
)
SYNC = Metric(
    "sampling/sync_difference",
    "mean |log π scored − log π while sampling| of a few tokens, right after the weights were handed over",
    hold=True,
)
PROOF = 8
"""Tokens that an engine with other numbers samples to show which weights it has."""
AHEAD = [STALENESS, SYNC, *CORRECTION]
"""What is measured of rollouts that were sampled ahead."""
PATIENCE = 5.0
"""Seconds that a rollout which nobody wants any more may take to end."""


def check_ahead(args: Any) -> None:
    """Raises ValueError for fields about where and when sampling happens that do not go together."""
    if args.rollout_staleness not in (0, 1):
        raise ValueError(
            f"rollout_staleness={args.rollout_staleness}: expected 0 (in step) or 1 (the next rollout is sampled meanwhile)"
        )
    if args.rollout_devices is not None and not args.rollout_devices:
        raise ValueError("rollout_devices is empty; write for example ['cuda:1'], or leave it out")
    if not getattr(args, "use_vllm", False):
        return
    if args.rollout_devices is not None:
        raise ValueError(
            f"rollout_devices={args.rollout_devices} has no effect with use_vllm=True: vLLM samples; leave one of them out"
        )
    if args.rollout_staleness and args.vllm_mode == "colocate":
        raise ValueError(
            "rollout_staleness=1 with vllm_mode='colocate': a vLLM on the training's own GPUs can't sample meanwhile; write "
            "vllm_mode='server', or rollout_staleness=0"
        )


def engine_apart(args: Any, engine: Engine, driver: Driver) -> Engine:
    """The engine that `args` ask for, `engine` where that is one. Raises ValueError where it can't sample apart."""
    if args.rollout_staleness and isinstance(driver, RolloutFunc):
        raise ValueError(
            "rollout_staleness=1 needs to know which weights sample, and rollout_func decides that itself; leave one of them out"
        )
    wanted = args.rollout_staleness or args.rollout_devices
    if isinstance(engine, InProcess):
        if not wanted or getattr(args, "use_vllm", False):
            return engine
        devices, rank, world = args.rollout_devices, args.process_index, args.world_size
        mine = None if devices is None else devices[rank::world] or [devices[rank % len(devices)]]
        return ProcessEngine(devices=mine, rows=engine.rows)
    if args.rollout_devices:
        raise ValueError(
            f"rollout_devices={args.rollout_devices} has no effect with engine={type(engine).__name__}; leave one of them out"
        )
    if wanted and not getattr(engine, "apart", False):
        raise ValueError(
            f"rollout_staleness=1 needs an engine with weights of its own, and {type(engine).__name__} does not say that it has "
            "them (apart = True)"
        )
    return engine


@dataclass
class Pending:
    """Rollout `number`, sampled by the weights of optimizer step `step`: under way while `thread` runs, then there or failed."""

    number: int
    step: int
    thread: threading.Thread | None = None
    found: Episodes | None = None
    error: BaseException | None = None


class Ahead:
    """Samples one rollout ahead for a collector."""

    def __init__(self, collector: Any) -> None:
        self.collector = collector
        self.pending: Pending | None = None

    def __call__(self, number: int) -> Episodes:
        """Rollout `number`, which was sampled ahead unless it is the first; the next one begins."""
        trainer = self.collector.trainer
        if self.pending is None or self.pending.number != number:
            self._start(number)
        self.wait()
        done, self.pending = self.pending, None
        assert done is not None
        if done.error is not None or done.found is None:
            raise done.error or RuntimeError(f"rollout {number} came to nothing")
        trainer.meter.add({STALENESS.name: (torch.tensor(float(trainer.state.global_step - done.step)), 1.0)})
        if number + 1 < trainer.schedule.rollouts:
            self._start(number + 1)
        return done.found

    def wait(self) -> None:
        """Until nothing is being sampled."""
        if self.pending is not None and self.pending.thread is not None:
            self.collector.trainer.watchdog.beat("sampling")
            self.pending.thread.join()

    def drop(self) -> None:
        """What was sampled ahead is not wanted any more; the engine is free again."""
        self.wait()
        self.pending = None

    def close(self) -> None:
        """As `drop`, for an engine that was closed: what it was sampling breaks off."""
        if self.pending is not None and self.pending.thread is not None:
            self.pending.thread.join(PATIENCE)
        self.pending = None

    def _start(self, number: int) -> None:
        collector, trainer = self.collector, self.collector.trainer
        rows, _, seeds = collector.asked(number)
        trainer.watchdog.beat("sampling")
        pending = Pending(number, trainer.state.global_step)
        with trainer.accelerator.autocast(), whole(trainer.policy):
            collector.engine.sync(trainer.policy, trainer.state.global_step)
        if not collector.engine.exact:
            self._prove(rows[0]["prompt_ids"], seeds[0])

        def run() -> None:
            try:
                with trainer.accelerator.autocast():  # each thread has its own
                    pending.found = collector.means.driver(rows, collector.turn, seeds)
            except BaseException as error:  # raised where the rollout is wanted
                pending.error = error

        pending.thread = threading.Thread(target=run, daemon=True, name="trellis-ahead")
        self.pending = pending
        pending.thread.start()

    def weighed(self, advantages: Tensor, rollout: Rollout, level: str) -> Tensor:
        """[B, T] `advantages` times π_proximal/π_behaviour of the token or row (`level`), cut off at staleness_weight_max.

        The decoupled objective, whose clip is around the proximal policy: Hilton et al. 2021 (2110.00641), §3; for language
        models Fu et al. 2025 (2505.24298), eq. 5. Cutting weights off: Yao et al. 2025, "Your efficient RL framework secretly
        brings you off-policy RL training".
        """
        trainer, mask = self.collector.trainer, rollout.loss_mask
        old, sampled, most = rollout.old_logps, rollout.sampled_logps, trainer.args.staleness_weight_max
        weights = correction(old, sampled, mask, mode=f"{level}_truncate", clip_max=most)
        trainer.meter.add(correction_sums(old - sampled, weights, mask))
        return advantages * weights

    @torch.no_grad()
    def _prove(self, prompt: Sequence[int], seed: int) -> None:
        """Log how far the engine's numbers are from the policy's, while both have the same weights."""
        collector, trainer = self.collector, self.collector.trainer
        done = collector.turn([prompt], [seed], PROOF)
        batch = to_batch([prompt], done).to(trainer.args.device)
        trainer.model.eval()
        difference = trainer.look(batch)[0] - spread([c.logps for c in done], batch)
        trainer.meter.add({SYNC.name: ((difference.abs() * batch.loss_mask).sum(), batch.loss_mask.sum())})

    # ---- resume --------------------------------------------------------------------------------------------------------

    def state(self, places: Sequence[int]) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
        """Tensors and JSON values of what was sampled ahead for this process's `places`, once it is there."""
        self.wait()
        pending = self.pending
        if pending is None or pending.found is None:
            return {}, None
        found = pending.found
        plain = {
            "number": pending.number,
            "step": pending.step,
            "places": [places[0], places[-1]],
            "columns": found.columns,
            "prompts": found.prompts,
            "messages": [c.messages for c in found.completions],
            "metrics": {name: [float(s), float(n)] for name, (s, n) in found.metrics.items()},
        }
        if not _is_json(plain):
            logger.warning(
                "what was sampled ahead holds objects (environments) that no checkpoint can hold: a run resumed from here "
                "samples rollout %d anew, with newer weights",
                pending.number,
            )
            return {}, None
        return packed(found.completions), plain

    def load(self, tensors: dict[str, Tensor], plain: dict[str, Any] | None, places: Sequence[int]) -> None:
        """The inverse of `state`. What was sampled for other places (another number of processes) is sampled anew."""
        self.drop()
        if plain is None:
            return
        if plain["places"] != [places[0], places[-1]]:
            logger.warning(
                "rollout %d was sampled ahead for another number of processes and is sampled anew, with newer weights",
                plain["number"],
            )
            return
        metrics = {
            name: (torch.tensor(s, dtype=torch.float64), n) for name, (s, n) in plain["metrics"].items()
        }
        completions = unpacked(tensors, plain["messages"])
        found = Episodes(completions, plain["prompts"], plain["columns"], metrics)
        self.pending = Pending(plain["number"], plain["step"], found=found)


def _is_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False


def packed(completions: Sequence[Completion]) -> dict[str, Tensor]:
    """Completions, but for their messages, as tensors end to end."""
    return {
        "ahead.lengths": torch.tensor([len(c) for c in completions]),
        "ahead.ids": torch.tensor([token for c in completions for token in c.ids]),
        "ahead.mask": torch.tensor([mark for c in completions for mark in c.sampled], dtype=torch.bool),
        "ahead.whole": torch.tensor([c.mask is None for c in completions]),
        "ahead.stopped": torch.tensor([c.finish_reason == "stop" for c in completions]),
        "ahead.logps": torch.tensor([x for c in completions for x in c.logps], dtype=torch.float64),
        "ahead.sampler_logps": torch.tensor(
            [x for c in completions for x in c.sampler_logps], dtype=torch.float64
        ),
    }


def unpacked(tensors: dict[str, Tensor], messages: Sequence[Any]) -> list[Completion]:
    """The inverse of `packed`."""
    lengths = tensors["ahead.lengths"].tolist()
    ids, masks = (tensors[f"ahead.{name}"].split(lengths) for name in ("ids", "mask"))
    counts = [int(mask.sum()) for mask in masks]
    logps, drawn = (tensors[f"ahead.{name}"].split(counts) for name in ("logps", "sampler_logps"))
    whole, stopped = tensors["ahead.whole"].tolist(), tensors["ahead.stopped"].tolist()
    return [
        Completion(
            ids[i].tolist(),
            logps[i].tolist(),
            drawn[i].tolist(),
            "stop" if stopped[i] else "length",
            None if whole[i] else masks[i].tolist(),
            messages[i],
        )
        for i in range(len(lengths))
    ]
