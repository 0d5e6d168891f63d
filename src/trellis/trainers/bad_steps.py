"""Steps whose numbers are not finite: found before the optimizer moves, kept for inspection, and answered as the user chose."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import checkpoint
from .alive import Alive
from .diagnosis import diagnose, tensors_of
from .zero import refused, scales

logger = logging.getLogger(__name__)
FOLDER = "bad_steps"


class BadSteps:
    """Judges every optimizer step by its loss and its gradient norm; `count`: how many were bad in this run."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.count = 0
        self._adapters = Alive(trainer)

    def logged(self) -> dict[str, float]:
        """What the log says of them: nothing while there are none."""
        return {"bad_steps": self.count} if self.count else {}

    def judge(self, model: nn.Module, norm: Any) -> None:
        """Called with the step's gradient norm right before the optimizer moves; every rank decides alike.

        A bad step raises FloatingPointError, or leaves the weights as they are and counts (`on_bad_step`).
        """
        trainer = self.trainer
        trainer.watchdog.beat("taking the step")
        losses = trainer.current.losses
        mine = bool(losses) and not bool(torch.stack(losses).isfinite().all())
        told = trainer.signals.received is not None
        any_loss, any_signal = trainer.sum_over_ranks(torch.tensor([float(mine), float(told)])).tolist()
        trainer.signals.agree(bool(any_signal))
        # A gradient scaler (fp16) looks for the scale at which nothing overflows: too large is no fault.
        if not scales(trainer) and refused(trainer):
            norm = math.inf  # DeepSpeed has not stepped; the norm it tells is that of the step before
        if any_loss or not (scales(trainer) or norm is None or math.isfinite(float(norm))):
            self._answer(model, norm, mine or not any_loss)
        else:
            self._adapters.look(model)
        trainer.current.clear()

    def _answer(self, model: nn.Module, norm: Any, mine: bool) -> None:
        trainer, args = self.trainer, self.trainer.args
        self.count += 1
        said = f"step {trainer.state.global_step + 1} was bad on another process; see what that one says"
        if mine:
            said = self._keep(norm)
        enough = self.count > args.max_bad_steps
        if args.on_bad_step == "stop" or enough:
            many = (
                f" It is bad step {self.count}, one more than max_bad_steps={args.max_bad_steps}."
                if enough
                else ""
            )
            raise FloatingPointError(said + many)
        # Optimizers leave a parameter without gradient, and what they remember of it, alone.
        model.zero_grad()
        trainer.current.take_back()
        trainer.current.take_back_loss()
        if refused(trainer):
            trainer.lr_scheduler.step()  # the loop leaves it where it is, after a step that DeepSpeed left out
        back = f" Went back to {self.roll_back()}." if args.on_bad_step == "rollback" else ""
        logger.warning(
            "%s The step is left out (%d of at most %d).%s", said, self.count, args.max_bad_steps, back
        )

    def _keep(self, norm: Any) -> str:
        """Write the step's batches and what is wrong with them; returns it as text."""
        trainer, number = self.trainer, self.trainer.state.global_step + 1
        found = diagnose(trainer, norm)
        name = f"step-{number}" + (
            f"-rank-{trainer.args.process_index}" if trainer.args.world_size > 1 else ""
        )
        folder = Path(trainer.args.output_dir, FOLDER)
        tensors = {
            f"{i}.{key}": x for i, batch in enumerate(trainer.current.batches) for key, x in tensors_of(batch)
        }
        checkpoint.save_state(folder, tensors, found.as_json(number, trainer.args.process_index), name=name)
        return f"{found.text(number)} The batch is in {folder / name}.safetensors, this in {name}.json."

    def go_back(self, why: str) -> Path:
        """Answer an unhealthy run with a roll-back, which counts as a bad step. Raises FloatingPointError after too many."""
        self.count += 1
        if self.count > self.trainer.args.max_bad_steps:
            raise FloatingPointError(
                f"{why}. Going back {self.count - 1} times did not help (max_bad_steps={self.trainer.args.max_bad_steps})"
            )
        return self.roll_back()

    def roll_back(self) -> Path:
        """Weights, optimizer and the trainer's own state as the last checkpoint has them; data and schedule go on from here."""
        trainer, folder = self.trainer, self.trainer.saving.last
        if folder is None or checkpoint.verify(folder):
            raise FloatingPointError(
                f"nothing to go back to: {'this run has saved nothing yet' if folder is None else f'{folder} is damaged'}; "
                'save more often (save_steps), or write on_bad_step="skip" (without roll_back_on_health)'
            )
        schedule = trainer.lr_scheduler.state_dict()
        trainer._load_from_checkpoint(str(folder))
        trainer._load_optimizer_and_scheduler(str(folder))
        trainer.lr_scheduler.load_state_dict(schedule)
        trainer.abandon_data()
        tensors, plain = checkpoint.load_state(trainer.state_dir(folder))
        now = trainer.extra_state()[1]
        kept = {key: now[key] for key in ("logging", "meter", "on_policy", "faults") if key in now}
        tensors = {name: x for name, x in tensors.items() if not name.startswith("rollout.")}
        trainer.load_extra_state(tensors, {**plain, **kept})
        return folder
