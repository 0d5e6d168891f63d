"""Kahneman-Tversky optimisation: learning from answers that were liked or not, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from ..data import DataReport
from ..data.unpaired import LabelledAnswers, as_labelled, collate_unpaired
from ..losses.binding import bound
from ..losses.unpaired import UNPAIRED_LOSSES
from ..metrics import Metric
from ..models import Reference, base_causal_lm
from ..rollout import evaluation
from ..types import LossOutput, Metrics, Scores, TokenBatch, UnpairedBatch
from .config import adopt
from .dpo_metrics import mean_logit
from .dpo_setup import build_policy, mapped, pair_tokenizer
from .eval_table import show_samples
from .follow import FollowPolicy, own_weights
from .kto_config import KTOConfig
from .kto_kl import MismatchedKL
from .kto_setup import (
    METRICS,
    build_reference,
    check_reference,
    fit_positions,
    unpaired_data,
    warn_of_imbalance,
)
from .old_arguments import takes_old_arguments
from .own_rows import swapped
from .precompute import COLUMNS, weights_hash, with_reference

__all__ = ["KTOConfig", "KTOTrainer"]


class KTOTrainer(MismatchedKL):
    """Trains a causal language model on single answers with a label, against a frozen reference; pairs are taken apart.

    Mismatched prompts and answers are drawn once over the whole data, and their KL is one number for an optimizer step: neither
    depends on the batch size, accumulation or ranks. `ref_model=None`: the model as it is now (with an adapter: without it, or
    with it as it is now). `reports` tell what became of the data.
    """

    counted = ("tokens_seen",)
    metrics: ClassVar[list[Metric]] = METRICS

    @takes_old_arguments(KTOConfig)
    def __init__(
        self,
        model: Any,
        ref_model: Any = None,
        args: TrainingArguments | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        data_collator: Callable[[list[dict[str, Any]]], UnpairedBatch] | None = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        preprocess_logits_for_metrics: Callable[[Tensor, Tensor], Tensor] | None = None,
        peft_config: Any = None,
        compute_metrics: Callable[..., dict[str, float]] | None = None,
        model_adapter_name: str | None = None,
        ref_adapter_name: str | None = None,
    ) -> None:
        args = adopt(args, KTOConfig)
        check_reference(model, ref_model, args)
        tokenizer = pair_tokenizer(processing_class, model, None)
        self.pad_id = tokenizer.pad_token_id
        self.reports: dict[str, DataReport] = {}
        data = {"train_dataset": train_dataset, "eval_dataset": eval_dataset}
        train, held_out = (unpaired_data(d, tokenizer, args, n, self.reports) for n, d in data.items())
        warn_of_imbalance(train, args)
        filed = UNPAIRED_LOSSES[args.loss_type]
        self.wants_kl = filed.wants_kl
        self.row_loss = bound(filed.function, vars(args), f"loss_type={args.loss_type!r}")
        self.tokens_seen = torch.zeros((), dtype=torch.int64)
        policy = build_policy(model, args, tokenizer, peft_config)
        for name, rows in (("train_dataset", train), ("eval_dataset", held_out)):
            mapped(rows, lambda part, n: fit_positions(policy, part, n), name)
        names = {"model_adapter_name": model_adapter_name, "ref_adapter_name": ref_adapter_name}
        self.reference: Reference | None = build_reference(policy, ref_model, args, **names)
        super().__init__(
            policy,
            args,
            train_dataset=train,
            eval_dataset=held_out,
            processing_class=tokenizer,
            data_collator=data_collator,
            callbacks=callbacks,
            optimizers=optimizers,
            compute_metrics=compute_metrics,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        )
        if args.precompute_ref_log_probs:
            self._precompute()
        if args.sync_ref_model:
            self.add_callback(FollowPolicy(self))

    # ---- the reference -------------------------------------------------------------------------------------------------

    def _precompute(self) -> None:
        """Put the reference's log-probs beside the rows, then let go of it."""
        assert self.reference is not None
        with self.reference.active(self.model) as model:
            key = [weights_hash(model), f"bf16={self.args.bf16} fp16={self.args.fp16}"]
        size = self.args.precompute_ref_batch_size or self.args.per_device_train_batch_size
        where = {"output_dir": self.args.output_dir, "accelerator": self.accelerator}

        def known(data: LabelledAnswers, name: str) -> None:
            rows = with_reference(
                data.as_pairs(), name, key=key, score=self._score_pairs, batch_size=size, **where
            )
            data.ref_logps = torch.tensor([[row[c] for c in COLUMNS] for row in rows])

        mapped(self.train_dataset, known, "train_dataset")
        mapped(self.eval_dataset, known)
        self.reference = None

    def _score_pairs(self, rows: list[dict[str, Any]]) -> Tensor:
        """[p, 2]: log π_ref of both answers of rows as `LabelledAnswers.as_pairs` gives them; 0 for an answer that is missing."""
        batch = self.collate([as_labelled(row) for row in rows])
        return self.reference_logps(self._prepare_inputs(batch).tokens).view(2, -1).T

    # ---- the three sentences -------------------------------------------------------------------------------------------

    def collate(self, rows: list[dict[str, Any]]) -> UnpairedBatch:
        """One UnpairedBatch."""
        return collate_unpaired(rows, self.pad_id, self.args.pad_to_multiple_of)

    def items(self, batch: UnpairedBatch) -> int:
        """Rows."""
        if not isinstance(batch, UnpairedBatch):
            raise TypeError(
                f"data_collator must return a trellis.types.UnpairedBatch, found {type(batch).__name__}; leave it out, or build "
                "one with trellis.data.unpaired.collate_unpaired(rows, pad)"
            )
        return len(batch)

    def loss(self, model: nn.Module, batch: UnpairedBatch) -> LossOutput:
        """Σ over rows of the loss named by `loss_type`."""
        lm, rows = base_causal_lm(model), batch.own()
        batch, scores = self.beside_kl(model, batch, entropy=True, value_head=mean_logit(lm))
        known = self.own_reference(batch)
        ratios = scores.logps.sum(1) - known.to(scores.logps)
        kl = () if batch.kl is None else (batch.kl.to(ratios),)
        total = self.row_loss(ratios, batch.label, *kl).sum()
        metrics = self._described(batch, rows, ratios, scores)
        if scores.aux_loss is not None:
            total = total + getattr(lm.config, "router_aux_loss_coef", 0.0) * scores.aux_loss * len(batch)
            metrics["aux_loss"] = (scores.aux_loss.detach(), 1.0)
        if model.training:
            self.tokens_seen = self.tokens_seen.to(total.device) + rows.attention_mask.sum()
        return LossOutput(total, metrics)

    @torch.no_grad()
    def _described(self, batch: UnpairedBatch, rows: TokenBatch, ratios: Tensor, scores: Scores) -> Metrics:
        tokens = rows.loss_mask.sum(1)
        assert scores.entropy is not None
        assert scores.values is not None
        metrics: Metrics = {"entropy": (scores.entropy.sum(), tokens.sum())}
        if batch.kl is not None:
            metrics["kl"] = (batch.kl * len(batch), len(batch))
        for side, which in (("chosen", batch.label), ("rejected", ~batch.label)):
            metrics[f"rewards/{side}"] = (self.args.beta * ratios[which].sum(), which.sum())
            metrics[f"logps/{side}"] = (scores.logps[which].sum(), which.sum())
            metrics[f"logits/{side}"] = (scores.values[which].sum(), tokens[which].sum())
        return metrics

    def predictions(self, model: nn.Module, batch: UnpairedBatch) -> tuple[Tensor, Tensor]:
        """(rewards β log π/π_ref [B], labels [B])."""
        ratios = self.score(model, batch.own()).logps.sum(1) - self.own_reference(batch)
        return self.args.beta * ratios, batch.label

    # ---- evaluation, and what a resumed run has to know ----------------------------------------------------------------

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        with self.watchdog.during("evaluating"):
            kl = self.estimate(self._held_out(dataloader), self.sum_over_ranks) if self.wants_kl else None
        with swapped(self, "held_out_kl", kl):
            output = super().evaluation_loop(dataloader, *args, **kwargs)
        if self.args.generate_during_eval:
            policy, reference = self.accelerator.unwrap_model(self.model), self.reference
            writers: dict[str, Any] = {"policy": lambda: evaluation(policy)}
            if reference is not None:
                writers["reference"] = lambda: reference.active(self.model)
            show_samples(self, dataloader.dataset, writers)
        return output

    def _held_out(self, dataloader: Any) -> Iterable[UnpairedBatch]:
        for held in dataloader:
            rows = held.own(self.accelerator.gradient_state, self.args.process_index)
            if rows:
                yield self._prepare_inputs(self.data_collator(rows))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs["num_tokens"] = float(self.sum_over_ranks(self.tokens_seen))
        super().log(logs, start_time)

    def extra_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, plain = super().extra_state()
        if self.args.sync_ref_model and self.reference is not None:
            followed = own_weights(self.reference)
            tensors = {**tensors, **{f"reference.{n}": w.detach() for n, w in followed.items()}}
        return tensors, {**plain, "tokens_seen": self.tokens_seen.item()}

    def load_extra_state(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        super().load_extra_state(tensors, plain)
        self.tokens_seen.fill_(plain["tokens_seen"])
        if self.args.sync_ref_model and self.reference is not None:
            for name, weight in own_weights(self.reference).items():
                weight.data.copy_(tensors[f"reference.{name}"])
