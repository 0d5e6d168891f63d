"""PostTrainer: one normaliser, one meter and one checkpoint inside Hugging Face's training loop.

The pivot is `Trainer.get_batch_samples`: it is called once per optimizer step, before any forward pass, and the number it returns
reaches `compute_loss`. There the items of all micro-batches of all ranks are counted, so a loss may be a plain sum and no split
into micro-batches, padding or ranks can change a gradient.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, set_seed

from .. import checkpoint
from ..metrics import Meter, Metric
from ..monitor import Profile
from ..scoring import score
from ..types import LossOutput, Record, Scores, TokenBatch
from .bad_steps import BadSteps
from .choices import Choices, during
from .given import Given, OnTrainBegin
from .memory import Memory
from .order import endless, seeded
from .own_rows import Held, OwnRows, swapped
from .running import callback_tensors, load_running, operations, running_state, tokens_in
from .saving import Saving, create_model_card, require_finite, trained
from .sharding import ShardedTrainer
from .signals import Boundary, Signals
from .step import Step
from .switches import Switches
from .watchdog import Watchdog
from .watching import watchers
from .world import World


class PostTrainer(ShardedTrainer):
    """The base of all trainers. A trainer prepares its data and model, then says three things:

    `collate(rows)` → a batch; `items(batch)` → how many items its loss is summed over; `loss(model, batch)` → LossOutput, a sum.
    """

    metrics: ClassVar[list[Metric]] = []
    counted: ClassVar[tuple[str, ...]] = ()
    """Attributes that `loss` changes, beside the meter: they are put back when a step is taken anew or left out."""
    create_model_card = create_model_card

    def __init__(
        self,
        model: nn.Module,
        args: Any,
        *,
        train_dataset: Any,
        eval_dataset: Any = None,
        processing_class: Any = None,
        data_collator: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        **hf: Any,
    ) -> None:
        self.switches, self.given = Switches(self, model, args), Given(model)
        self.profile, self.own_rows = Profile(self), OwnRows(self)
        self.meter = Meter(self.declared_metrics())
        self.resumed_from: str | None = None
        self._evaluated = torch.zeros(2, dtype=torch.float64)
        self.current, self.memory, self.bad_steps = Step(self), Memory(self), BadSteps(self)
        self.saving, self.signals, self.watchdog = Saving(self), Signals(self), Watchdog(self)
        # Several GPUs in one process would be nn.DataParallel, which knows nothing of our batches.
        args._n_gpu = min(args.n_gpu, 1)
        if args.accelerator_config.dispatch_batches is None:
            args.accelerator_config.dispatch_batches = False  # of streams: ranks read for themselves
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator or self.collate,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            **hf,
        )
        self.given.put_back(model)
        self.loss_is_scaled_for_ga = True
        for callback in (OnTrainBegin(self), World(self), Choices(self), *watchers(self), Boundary(self)):
            self.add_callback(callback)

    # ---- what a trainer says -------------------------------------------------------------------------------------------

    def declared_metrics(self) -> Iterable[Metric]:
        """The metrics this trainer may add to the meter (more than the class's, where names depend on arguments)."""
        return self.metrics

    def collate(self, rows: list[dict[str, Any]]) -> Any:
        """A batch (a `types.Record`) from prepared rows."""
        raise TypeError(f"{type(self).__name__} must define collate(rows)")

    def items(self, batch: Any) -> Tensor | float:
        """How many items (tokens, pairs, rows) the loss of `batch` is summed over."""
        raise TypeError(f"{type(self).__name__} must define items(batch)")

    def loss(self, model: nn.Module, batch: Any) -> LossOutput:
        """The loss of `batch` as a sum over its items."""
        raise TypeError(f"{type(self).__name__} must define loss(model, batch)")

    def predictions(self, model: nn.Module, batch: Any) -> tuple[Tensor | None, Tensor | None]:
        """(predictions, labels) for a user's `compute_metrics`."""
        return None, None

    def extra_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON values, beyond weights and optimizer, that the next step depends on."""
        return callback_tensors(self), running_state(self)

    def load_extra_state(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """The inverse of `extra_state`."""
        load_running(self, tensors, plain)

    def abandon_data(self) -> None:
        """Train no more on what was made by weights that are gone (a rollout in use)."""

    # ---- the data ------------------------------------------------------------------------------------------------------

    def _get_dataloader(
        self,
        dataset: Any,
        description: str,
        batch_size: int,
        sampler_fn: Any = None,
        is_training: bool = False,
        dataloader_key: str | None = None,
    ) -> Any:
        read = endless(dataset) if is_training else dataset
        with swapped(self, "data_collator", self.data_collator if is_training else Held):
            return super()._get_dataloader(
                read, description, batch_size, sampler_fn, is_training, dataloader_key
            )

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return seeded(super()._get_train_sampler(train_dataset), self.args.seed)

    # ---- the step ------------------------------------------------------------------------------------------------------

    def score(self, model: nn.Module, batch: TokenBatch, **kwargs: Any) -> Scores:
        """`scoring.score` in the trainer's precision and layout: the one way in which a trainer meets a model."""
        with self.accelerator.autocast():
            return score(model, batch, layout=self.args.layout, **kwargs)

    def sum_over_ranks(self, x: Tensor) -> Tensor:
        """The sum of a tensor of the same shape on every rank."""
        if self.accelerator.num_processes == 1:
            return x
        return self.accelerator.reduce(x.to(self.accelerator.device), reduction="sum").to(x.device)

    def count_items(self, batches: list[Any]) -> Tensor:
        """The optimizer step's divisor: the items of its micro-batches on all ranks, at least 1."""
        items = sum(float(self.items(batch)) for batch in batches)
        return self.sum_over_ranks(torch.tensor(items, dtype=torch.float32)).clamp(min=1)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        self.watchdog.beat("reading data")
        batches = self.own_rows.cut(list(itertools.islice(epoch_iterator, num_batches)))
        self._load_rng_state(self.resumed_from)
        return batches, self.count_items(self.own_rows.of(batches))

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        self.watchdog.beat("training")
        return self.memory(super().training_step, model, inputs, num_items_in_batch)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=self.switches.norm(grad_norm))
        self.bad_steps.judge(model, norm)
        return norm

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        out = self.switches.loss(model, inputs)
        self.meter.add(out.metrics)
        # Gradients are averaged over ranks, and the divisor counts all of them.
        divisor = self.count_items([inputs]) if num_items_in_batch is None else num_items_in_batch
        loss = self.seen(out.total * self.accelerator.num_processes / divisor)
        return (loss, out) if return_outputs else loss

    def _prepare_inputs(self, inputs: Any) -> Any:
        return inputs.to(self.args.device) if isinstance(inputs, Record) else super()._prepare_inputs(inputs)

    def floating_point_ops(self, inputs: Any) -> int:
        return operations(self.model, inputs)

    def _track_num_input_tokens(self, inputs: Any) -> None:
        kind = self.args.include_num_input_tokens_seen
        if kind != "no":
            self.state.num_input_tokens_seen += int(self.sum_over_ranks(tokens_in(inputs, kind)))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            means = self.meter.means(self.sum_over_ranks)
            logs.update(means | self.profile.logged() | self.bad_steps.logged())
            self.meter.reset()
        super().log(logs, start_time)

    # ---- evaluation ----------------------------------------------------------------------------------------------------

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        self._evaluated.zero_()
        only_loss = True if self.compute_metrics is None else prediction_loss_only
        with self.watchdog.during("evaluating"), swapped(self, "meter", Meter(self.declared_metrics())):
            output = super().evaluation_loop(
                dataloader, description, only_loss, ignore_keys, metric_key_prefix
            )
            total, items = self.sum_over_ranks(self._evaluated)
            output.metrics[f"{metric_key_prefix}_loss"] = float(total / items.clamp(min=1))
            for name, value in self.meter.means(self.sum_over_ranks).items():
                output.metrics[f"{metric_key_prefix}_{name}"] = value
        return output

    def prediction_step(
        self,
        model: nn.Module,
        inputs: Any,
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        self.watchdog.beat("evaluating")
        own = inputs.own(self.accelerator.gradient_state, self.args.process_index)
        with torch.no_grad():
            # Without rows of its own a rank meets the others in the forward pass, where a model may lie in pieces.
            batch = self._prepare_inputs(self.data_collator(own or inputs.rows))
            out, items = self.loss(model, batch), float(self.items(batch))
            total = (out.total / max(items, 1.0)).float()
            if own:
                self.meter.add(out.metrics)
                self._evaluated += torch.tensor([float(out.total), items], dtype=torch.float64)
            if prediction_loss_only:
                return total, None, None
            return total, *self.predictions(model, self._prepare_inputs(self.data_collator(inputs.rows)))

    # ---- checkpoints ---------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train; `resume_from_checkpoint=True` goes on from the newest whole checkpoint, to the bit on a CPU."""
        self.resumed_from, self._rng_restored = None, False
        set_seed(self.args.seed)  # data order and dropout depend on it, not on what ran since construction
        if resume_from_checkpoint:
            self.resumed_from = str(checkpoint.resolve_resume(self.args.output_dir, resume_from_checkpoint))
        self.saving.last = None if self.resumed_from is None else Path(self.resumed_from)
        self.current.clear()
        with during(self):
            return super().train(resume_from_checkpoint=self.resumed_from, **kwargs)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        # Once: the loop asks again after `get_batch_samples`, which may have drawn since (a reward function).
        if checkpoint is not None and not self._rng_restored:
            super()._load_rng_state(checkpoint)
            self._rng_restored = True

    def state_dir(self, folder: str | Path) -> Path:
        """Where this rank keeps its own part of a checkpoint."""
        return Path(folder) / f"trellis-{self.args.process_index}"

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self.saving.aside is None else str(self.saving.aside)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.watchdog.beat("saving")
        self.saving(functools.partial(super()._save_checkpoint, model, trial), self._get_output_dir(trial))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if not self.args.should_save:
            return
        require_finite(trained(self.model) if state_dict is None else state_dict.items())
        folder = Path(output_dir or self.args.output_dir)
        self.saving.parts(folder, state_dict)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(str(folder))
        checkpoint.seal(folder, self.args)

    def save_parts(self, folder: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write the trained weights to `folder`, loadable by stock transformers (and peft)."""
        self.accelerator.unwrap_model(self.model).save_pretrained(str(folder), state_dict=state_dict)
