"""PostTrainer: one normaliser, one meter and one checkpoint inside Hugging Face's training loop.

The pivot is `Trainer.get_batch_samples`: it is called once per optimizer step, before any forward pass, and the number it returns
reaches `compute_loss`. There the items of all micro-batches of all ranks are counted, so a loss may be a plain sum and no split
into micro-batches, padding or ranks can change a gradient.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, set_seed

from .. import checkpoint
from ..metrics import Meter, Metric
from ..monitor import History
from ..scoring import score
from ..types import LossOutput, Record, Scores, TokenBatch
from .given import Given, OnTrainBegin
from .order import endless, seeded
from .own_rows import Held, swapped


class PostTrainer(Trainer):
    """The base of all trainers. A trainer prepares its data and model, then says three things:

    `collate(rows)` → a batch; `items(batch)` → how many items its loss is summed over; `loss(model, batch)` → LossOutput, a sum.
    """

    metrics: ClassVar[list[Metric]] = []

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
        self.given = Given(model)
        self.meter = Meter(self.declared_metrics())
        self.resumed_from: str | None = None
        self._evaluated = torch.zeros(2, dtype=torch.float64)
        self._staging: Path | None = None
        self._rng_restored = False
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
        self.add_callback(OnTrainBegin(self))
        self.add_callback(History())

    # ---- what a trainer says -------------------------------------------------------------------------------------------

    def declared_metrics(self) -> Iterable[Metric]:
        """The metrics this trainer may add to the meter (more than the class's, where names depend on arguments)."""
        return self.metrics

    def collate(self, rows: list[dict[str, Any]]) -> Any:
        """A batch (a `types.Record`) from prepared rows."""
        raise TypeError(f"{type(self).__name__} must define collate(rows)")

    def items(self, batch: Any) -> Tensor | float:
        """How many items (tokens, pairs, rows) the loss of `batch` is a sum over."""
        raise TypeError(f"{type(self).__name__} must define items(batch)")

    def loss(self, model: nn.Module, batch: Any) -> LossOutput:
        """The loss of `batch` as a sum over its items."""
        raise TypeError(f"{type(self).__name__} must define loss(model, batch)")

    def predictions(self, model: nn.Module, batch: Any) -> tuple[Tensor | None, Tensor | None]:
        """(predictions, labels) for a user's `compute_metrics`."""
        return None, None

    def extra_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON values, beyond weights and optimizer, that the next step depends on."""
        logging = {
            "tr_loss": self._tr_loss.item(),
            "total_loss": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
            "initial_step": getattr(self, "_initial_global_step", 0),  # transformers 5.17 has none
        }
        return {}, {"logging": logging, "meter": self.meter.state_dict()}

    def load_extra_state(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """The inverse of `extra_state`."""
        logging = plain["logging"]
        self._tr_loss.fill_(logging["tr_loss"])
        self._total_loss_scalar = logging["total_loss"]
        self._globalstep_last_logged = logging["last_logged"]
        self._initial_global_step = logging["initial_step"]
        self.meter.load_state_dict(plain["meter"])

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
        batches = list(itertools.islice(epoch_iterator, num_batches))
        self._load_rng_state(self.resumed_from)
        return batches, self.count_items(batches)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        out = self.loss(model, inputs)
        self.meter.add(out.metrics)
        # Gradients are averaged over ranks, and the divisor counts all of them.
        divisor = self.count_items([inputs]) if num_items_in_batch is None else num_items_in_batch
        loss = out.total * self.accelerator.num_processes / divisor
        return (loss, out) if return_outputs else loss

    def _prepare_inputs(self, inputs: Any) -> Any:
        return inputs.to(self.args.device) if isinstance(inputs, Record) else super()._prepare_inputs(inputs)

    def floating_point_ops(self, inputs: Any) -> int:
        tokens = getattr(inputs, "tokens", inputs)
        return 6 * int(tokens.attention_mask.sum()) * sum(p.numel() for p in self.model.parameters())

    def _track_num_input_tokens(self, inputs: Any) -> None:
        kind = self.args.include_num_input_tokens_seen
        if kind == "no":
            return
        mask = getattr(inputs, "tokens", inputs).attention_mask
        count = mask.sum() if kind == "non_padding" else torch.tensor(mask.numel(), device=mask.device)
        self.state.num_input_tokens_seen += int(self.sum_over_ranks(count))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update(self.meter.means(self.sum_over_ranks))
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
        with swapped(self, "meter", Meter(self.declared_metrics())):
            output = super().evaluation_loop(
                dataloader, description, only_loss, ignore_keys, metric_key_prefix
            )
            total, items = self.sum_over_ranks(self._evaluated)
            output.metrics[f"{metric_key_prefix}_loss"] = float(total / items.clamp(min=1))
            means = self.meter.means(self.sum_over_ranks)
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in means.items()})
        return output

    def prediction_step(
        self,
        model: nn.Module,
        inputs: Any,
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        own = inputs.own(self.accelerator.gradient_state, self.args.process_index)
        total, found = torch.zeros((), device=self.args.device), (None, None)
        with torch.no_grad():
            if own:
                batch = self._prepare_inputs(self.data_collator(own))
                out, items = self.loss(model, batch), float(self.items(batch))
                self.meter.add(out.metrics)
                self._evaluated += torch.tensor([float(out.total), items], dtype=torch.float64)
                total = (out.total / max(items, 1.0)).float()
            if not prediction_loss_only:  # of all rows: the loop cuts what it gathers itself
                found = self.predictions(model, self._prepare_inputs(self.data_collator(inputs.rows)))
        return total, *found

    # ---- checkpoints ---------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train; `resume_from_checkpoint=True` goes on from the newest whole checkpoint, to the bit on a CPU."""
        self.resumed_from, self._rng_restored = None, False
        set_seed(self.args.seed)  # data order and dropout depend on it, not on what ran since construction
        if resume_from_checkpoint:
            self.resumed_from = str(checkpoint.resolve_resume(self.args.output_dir, resume_from_checkpoint))
        return super().train(resume_from_checkpoint=self.resumed_from, **kwargs)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        # Once: the loop asks again after `get_batch_samples`, which may have drawn since (a reward function).
        if checkpoint is not None and not self._rng_restored:
            super()._load_rng_state(checkpoint)
            self._rng_restored = True

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        checkpoint.check_loaded(self.model, load_result.missing_keys, load_result.unexpected_keys)

    def state_dir(self, folder: str | Path) -> Path:
        """Where this rank keeps its own part of a checkpoint."""
        return Path(folder) / f"trellis-{self.args.process_index}"

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._staging is None else str(self._staging)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        run_dir, name = self._get_output_dir(trial), f"checkpoint-{self.state.global_step}"
        world = self.args.world_size
        with checkpoint.staged(run_dir, name, step=self.state.global_step, world_size=world) as folder:
            self._staging = folder.parent
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._staging = None
            checkpoint.save_state(self.state_dir(folder), *self.extra_state())
            self._name_best(run_dir, folder)
        if self.args.should_save:
            limit, best = self.args.save_total_limit, self.state.best_model_checkpoint
            checkpoint.rotate(run_dir, limit, protect=best, written=name)

    def _name_best(self, run_dir: str, folder: Path) -> None:
        # The loop looked for the best checkpoint in the staging directory; it will lie in the run's.
        best = self.state.best_global_step
        if best and self.args.should_save:
            self.state.best_model_checkpoint = os.path.join(run_dir, f"checkpoint-{best}")
            self.state.save_to_json(str(folder / "trainer_state.json"))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.save_parts(folder, state_dict)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(str(folder))
        checkpoint.seal(folder, self.args)

    def save_parts(self, folder: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write the trained weights to `folder`, loadable by stock transformers (and peft)."""
        self.accelerator.unwrap_model(self.model).save_pretrained(str(folder), state_dict=state_dict)
