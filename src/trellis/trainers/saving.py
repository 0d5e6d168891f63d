"""Saving a trainer's checkpoint: whole, of finite weights, or not at all."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from .. import checkpoint
from ..models import check_saved
from .model_card import card_of, is_free, write_card

logger = logging.getLogger(__name__)


def create_model_card(
    trainer: Any,
    model_name: str | None = None,
    dataset_name: str | list[str] | None = None,
    tags: str | list[str] | None = None,
    **facts: Any,
) -> None:
    """Write the model card, README.md, into the output directory; what is not named is found (facts: see `card_of`).

    Every save writes one beside the model too. A README.md of your own is left as it is.
    """
    folder = Path(trainer.args.output_dir)
    if trainer.is_world_process_zero() and is_free(folder):
        write_card(card_of(trainer, model_name, dataset_name, tags, **facts), folder)


class Saving:
    """Writes checkpoints aside and puts them in their place. `last`: the newest that this run saved or came from."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.aside: Path | None = None
        self.last: Path | None = None
        self._said: set[str] = set()

    def __call__(self, write: Callable[[], None], run_dir: str) -> None:
        """Save what `write` writes (it asks `aside` where to) and the trainer's own state, then let old checkpoints go.

        A save that fails leaves nothing behind; it raises OSError, or warns where the run is to go on (`on_save_error`).
        """
        trainer = self.trainer
        name, best = f"checkpoint-{trainer.state.global_step}", trainer.state.best_model_checkpoint
        try:
            self._write(write, run_dir, name)
        except (OSError, RuntimeError, SafetensorError) as error:
            trainer.state.best_model_checkpoint = best
            message = self._failed(error, Path(run_dir, name))
            if trainer.args.on_save_error == "stop" or trainer.signals.agreed:
                raise OSError(message) from error
            logger.warning("%s", message)
            return
        self.last = Path(run_dir, name)
        if trainer.args.should_save:
            limit, best = trainer.args.save_total_limit, trainer.state.best_model_checkpoint
            checkpoint.rotate(run_dir, limit, protect=best, written=name)

    def parts(self, folder: Path, state: dict[str, Tensor] | None) -> None:
        """Write the trained weights and read adapters back. Raises RuntimeError when what lies there is not what is in memory."""
        folder.mkdir(parents=True, exist_ok=True)
        free = is_free(folder)  # asked before peft writes a card of its own
        self.trainer.save_parts(folder, state)
        if free:
            write_card(card_of(self.trainer), folder)
        for note in check_saved(self.trainer.model, folder, state):
            if note not in self._said:
                logger.warning("%s", note)
            self._said.add(note)

    def _write(self, write: Callable[[], None], run_dir: str, name: str) -> None:
        trainer, step = self.trainer, self.trainer.state.global_step
        with checkpoint.staged(run_dir, name, step=step, world_size=trainer.args.world_size) as folder:
            self.aside = folder.parent
            try:
                write()
            finally:
                self.aside = None
            checkpoint.save_state(trainer.state_dir(folder), *trainer.extra_state())
            self._name_best(run_dir, folder)

    def _name_best(self, run_dir: str, folder: Path) -> None:
        # The loop looked for the best checkpoint in the staging directory; it will lie in the run's, where each rank loads it.
        state = self.trainer.state
        if not state.best_global_step:
            return
        state.best_model_checkpoint = os.path.join(run_dir, f"checkpoint-{state.best_global_step}")
        if self.trainer.args.should_save:
            state.save_to_json(str(folder / "trainer_state.json"))

    def _failed(self, error: Exception, target: Path) -> str:
        free = shutil.disk_usage(target.parent).free
        kept = "this run has no earlier checkpoint" if self.last is None else f"{self.last} is untouched"
        return (
            f"{target} could not be saved ({type(error).__name__}: {error}); {free / 2**20:.0f} MiB are free there. Nothing of "
            f'it remains, {kept}. Make room, then resume_from_checkpoint=True; on_save_error="continue" trains on without it'
        )


def require_finite(weights: Iterable[tuple[str, Tensor]]) -> None:
    """Raises FloatingPointError, naming them, when weights that are to be saved hold NaN or infinity."""
    bad = non_finite(weights)
    if bad:
        raise FloatingPointError(
            f"not saved: {len(bad)} weights hold NaN or infinity ({', '.join(bad[:3])}, …); earlier checkpoints are untouched. "
            "Go on from one of them with a lower learning_rate, or a lower max_grad_norm"
        )


def non_finite(weights: Iterable[tuple[str, Tensor]]) -> list[str]:
    """The names of those that hold NaN or infinity."""
    floating = ((name, x) for name, x in weights if x.is_floating_point() and x.numel())
    return [name for name, x in floating if not bool(x.detach().isfinite().all())]


def trained(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """A model's trainable weights by name."""
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)
