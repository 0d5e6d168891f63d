"""Direct preference optimisation: how much more the policy prefers the better answer than its reference does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from ..data import DataReport, collate_pairs
from ..losses.divergence import divergence
from ..losses.weights import length_desensitised, on_policy_weight
from ..metrics import Metric
from ..models import base_causal_lm
from ..rollout import evaluation
from ..types import LossOutput, Metrics, Pair, PairBatch, PairStep, Scores
from .base import PostTrainer
from .config import adopt
from .dpo_config import DPOConfig
from .dpo_metrics import METRICS, mean_logit, pair_metrics
from .dpo_setup import (
    build_policy,
    build_reference,
    check_positions,
    check_reference,
    mapped,
    pair_data,
    pair_tokenizer,
)
from .eval_table import show_samples
from .follow import FollowPolicy, own_weights
from .old_arguments import takes_old_arguments
from .pair_step import WholeStep
from .precompute import weights_hash, with_reference

__all__ = ["DPOConfig", "DPOTrainer"]


class DPOTrainer(PostTrainer):
    """Trains a causal language model on pairs of answers against a frozen reference.

    `ref_model=None`: the model as it is now (with an adapter: without it, or with it as it is now). What a loss sees, and how one
    is added: `losses.preference`. `reports` tell what became of the data.
    """

    counted = ("tokens_seen", "whole")
    metrics: ClassVar[list[Metric]] = METRICS

    @takes_old_arguments(DPOConfig)
    def __init__(
        self,
        model: Any,
        ref_model: Any = None,
        args: TrainingArguments | None = None,
        data_collator: Callable[[list[dict[str, Any]]], PairBatch] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        compute_metrics: Callable[..., dict[str, float]] | None = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[Any, dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[[Tensor, Tensor], Tensor] | None = None,
        peft_config: Any = None,
    ) -> None:
        args = adopt(args, DPOConfig)
        check_reference(model, ref_model, peft_config, args)
        tokenizer = pair_tokenizer(processing_class, model, args.pad_token)
        self.pad_id = tokenizer.pad_token_id
        self.reports: dict[str, DataReport] = {}
        data = (("train_dataset", train_dataset), ("eval_dataset", eval_dataset))
        train, held_out = (pair_data(d, tokenizer, args, n, self.reports, args.tools) for n, d in data)
        self.objective = args.objective()
        self.transform = divergence(args.f_divergence_type, args.f_alpha_divergence_coef)
        self.whole = WholeStep()
        self.tokens_seen = torch.zeros((), dtype=torch.int64)
        policy = build_policy(model, args, tokenizer, peft_config)
        for name, rows in (("train_dataset", train), ("eval_dataset", held_out)):
            mapped(rows, lambda part, n: check_positions(policy, part, n, "DPOConfig"), name)
        self.reference = build_reference(policy, ref_model, args)
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
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
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
            weights = weights_hash(model)
        precision = f"bf16={self.args.bf16} fp16={self.args.fp16}"
        key = [weights, precision, f"ld_alpha={self.args.ld_alpha}"]

        def added(rows: Any, name: str) -> Any:
            size = self.args.precompute_ref_batch_size or self.args.per_device_train_batch_size
            where = {"output_dir": self.args.output_dir, "accelerator": self.accelerator}
            return with_reference(rows, name, key=key, score=self._score_rows, batch_size=size, **where)

        self.train_dataset = mapped(self.train_dataset, added, "train_dataset")
        self.eval_dataset = mapped(self.eval_dataset, added)
        self.reference = None

    def _score_rows(self, rows: list[dict[str, Any]]) -> Tensor:
        batch = self._prepare_inputs(collate_pairs(rows, self.pad_id))
        return self.reference_logps(batch).reshape(2, -1).T

    def reference_logps(self, batch: PairBatch) -> Tensor:
        """[2P]: log π_ref of the chosen, then the rejected answers, without gradient; 0 where there is no reference."""
        if self.args.reference_free:
            return torch.zeros(2 * len(batch), device=batch.margin.device)
        if batch.ref_logps is not None:
            return batch.ref_logps
        if self.reference is None:
            raise ValueError(
                "these rows have no reference log-probs, and the reference was let go after precomputing; pass the data to the "
                "constructor, or write precompute_ref_log_probs=False"
            )
        with self.watchdog.during("scoring"), self.reference.active(self.model) as model:
            return self.summed(self.score(model, batch.tokens).logps, batch)

    # ---- the three sentences -------------------------------------------------------------------------------------------

    def collate(self, rows: list[dict[str, Any]]) -> PairBatch:
        """One PairBatch."""
        return collate_pairs(rows, self.pad_id, self.args.pad_to_multiple_of)

    def items(self, batch: PairBatch) -> int:
        """Pairs."""
        if not isinstance(batch, PairBatch):
            raise TypeError(
                f"data_collator must return a trellis.types.PairBatch, found {type(batch).__name__}; leave it out, or build "
                "one with trellis.data.collate_pairs(rows, pad)"
            )
        return len(batch)

    def loss(self, model: nn.Module, batch: PairBatch) -> LossOutput:
        """Σ over pairs of the losses named by `loss_type`, each pair times its weight, plus rpo_alpha · NLL(chosen)."""
        head = mean_logit(base_causal_lm(model))
        # Before the policy is scored, whose activations stay until backward.
        batch = replace(batch, ref_logps=self.reference_logps(batch))
        scores = self.score(model, batch.tokens, entropy=True, hits=True, value_head=head)
        pair = self.pair(batch, self.summed(scores.logps, batch))
        losses = self.objective(self.divergent(pair), **self._supplied(pair, model.training))
        if self.args.use_weighting:
            losses = losses * self._weights(model, batch, scores)
        if self.args.rpo_alpha is not None:
            chosen = scores.logps[: len(batch)].sum(1) / pair.chosen_length.clamp(min=1)
            losses = losses - self.args.rpo_alpha * chosen
        total = losses.sum()
        metrics = pair_metrics(batch, pair, scores, self.args.beta)
        if self.args.rpo_alpha is None and "sft" not in self.args.loss_type:
            del metrics["nll_loss"]
        if scores.aux_loss is not None:
            total = total + self._balance(model, batch, scores.aux_loss, metrics)
        if model.training:
            if self.objective.needs("mean_reward"):
                self.whole.learn(self.args.beta * pair.chosen, self.args.beta * pair.rejected)
            seen = batch.tokens.attention_mask.sum()
            self.tokens_seen = self.tokens_seen.to(seen.device) + seen
        return LossOutput(total, metrics)

    # ---- what a loss sees ----------------------------------------------------------------------------------------------

    def summed(self, logps: Tensor, batch: PairBatch) -> Tensor:
        """[2P]: the log-probs [2P, T] of each answer, summed; with ld_alpha less of what only the longer one has."""
        if self.args.ld_alpha is None:
            return logps.sum(1)
        mask = batch.tokens.loss_mask
        partner = mask.sum(1).roll(len(batch))
        return (logps * length_desensitised(mask, partner, self.args.ld_alpha)).sum(1)

    def pair(self, batch: PairBatch, logps: Tensor) -> Pair:
        """Log-ratios, log-probs and lengths of the batch's pairs, from the policy's log-probs [2P]."""
        lengths = batch.tokens.loss_mask.sum(1)
        ratios = logps - self.reference_logps(batch).to(logps)
        return Pair(*ratios.chunk(2), *logps.chunk(2), *lengths.chunk(2))

    def divergent(self, pair: Pair) -> Pair:
        """The pairs with f′(π/π_ref) in the place of their log-ratios."""
        parts = {
            **vars(pair),
            "chosen": self.transform(pair.chosen),
            "rejected": self.transform(pair.rejected),
        }
        return Pair(**parts)

    def _supplied(self, pair: Pair, training: bool) -> dict[str, Any]:
        own = PairStep(pair.detach(), torch.arange(len(pair), device=pair.chosen.device))
        step = self.whole.take(len(pair)) if training and self.objective.needs("step") else None
        return {"step": own if step is None else step, "mean_reward": self.whole.mean_reward}

    @torch.no_grad()
    def _weights(self, model: nn.Module, batch: PairBatch, scores: Scores) -> Tensor:
        lengths = batch.tokens.loss_mask.sum(1)
        with (
            self.watchdog.during("scoring"),
            evaluation(model),
        ):  # half the temperature is the square of the distribution
            squared = self.score(model, batch.tokens, temperature=0.5).logps
        return on_policy_weight(scores.logps, squared, *lengths.chunk(2))

    def _balance(self, model: nn.Module, batch: PairBatch, aux_loss: Tensor, metrics: Metrics) -> Tensor:
        metrics["aux_loss"] = (aux_loss.detach(), 1.0)
        return getattr(base_causal_lm(model).config, "router_aux_loss_coef", 0.0) * aux_loss * len(batch)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.objective.needs("mean_reward"):
            self.whole.settle(self.sum_over_ranks)
        if self.objective.needs("step") and batches:
            with torch.no_grad(), self.watchdog.during("scoring"), evaluation(self.model):
                pairs = [self._unmoved(self._prepare_inputs(batch)) for batch in batches]
            self.whole.begin(pairs, self.accelerator, len(self.own_rows.of(pairs)))
        return batches, items

    def _unmoved(self, batch: PairBatch) -> Pair:
        return self.pair(batch, self.summed(self.score(self.model, batch.tokens).logps, batch))

    def predictions(self, model: nn.Module, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """(rewards β log π/π_ref [P, 2] of chosen and rejected, labels [P]: 0, the column of the better one)."""
        pair = self.pair(batch, self.summed(self.score(model, batch.tokens).logps, batch))
        rewards = self.args.beta * torch.stack([pair.chosen, pair.rejected], 1)
        return rewards, torch.zeros(len(batch), dtype=torch.long, device=rewards.device)

    # ---- what is shown, and what a resumed run has to know -------------------------------------------------------------

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        if self.args.generate_during_eval:
            writers: dict[str, Any] = {
                "policy": lambda: evaluation(self.accelerator.unwrap_model(self.model))
            }
            if self.reference is not None:
                reference = self.reference
                writers["reference"] = lambda: reference.active(self.model)
            show_samples(self, dataloader.dataset, writers)
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs["num_tokens"] = float(self.sum_over_ranks(self.tokens_seen))
        super().log(logs, start_time)

    def extra_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, plain = super().extra_state()
        if self.args.sync_ref_model and self.reference is not None:
            followed = own_weights(self.reference)
            tensors = {**tensors, **{f"reference.{n}": w.detach() for n, w in followed.items()}}
        seen = {"tokens_seen": self.tokens_seen.item(), "rewards": self.whole.state()}
        return tensors, {**plain, **seen}

    def load_extra_state(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        super().load_extra_state(tensors, plain)
        self.tokens_seen.fill_(plain["tokens_seen"])
        self.whole.load(plain["rewards"])
        if self.args.sync_ref_model and self.reference is not None:
            for name, weight in own_weights(self.reference).items():
                weight.data.copy_(tensors[f"reference.{name}"])
