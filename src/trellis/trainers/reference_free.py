"""What CPO and ORPO share: pairs of answers and a policy, no reference model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..data import DataReport, collate_pairs
from ..data.prepare import check_lengths, check_limit
from ..metrics import Metric
from ..models import base_causal_lm
from ..rollout import evaluation
from ..types import LossOutput, Metrics, PairBatch, Scores
from .base import PostTrainer
from .config import TrellisConfig, config, option
from .dpo_metrics import mean_logit
from .dpo_setup import build_policy, check_positions, mapped, pair_data, pair_tokenizer
from .eval_table import show_samples
from .old_fields import PAIRWISE
from .old_names import Old
from .unused import NO_REFERENCE


@config
class PairwiseConfig(TrellisConfig):
    """The fields that CPO and ORPO have in common."""

    renamed: ClassVar[Mapping[str, str | Old]] = PAIRWISE

    unused: ClassVar[Mapping[str, str]] = NO_REFERENCE

    learning_rate: float = option(1e-6, "The initial learning rate.")
    model_init_kwargs: dict[str, Any] | str | None = option(
        None, "Arguments for from_pretrained where the model is a name; float32 unless they hold a dtype."
    )
    disable_dropout: bool = option(True, "Set every dropout of the model to 0.")
    dataset_num_proc: int | None = option(None, "Processes that tokenize the data.")
    max_length: int | None = option(1024, "Tokens of a prompt and its longer answer; None: no limit.")
    max_prompt_length: int | None = option(512, "A longer prompt loses its beginning; None: no limit.")
    max_completion_length: int | None = option(None, "A longer answer loses its end; None: no limit.")
    truncation_mode: str = option(
        "keep_end",
        "Beyond max_length, keep_end takes from the prompt's beginning first, keep_start from the answers' end.",
        choices=("keep_end", "keep_start"),
    )
    generate_during_eval: bool = option(
        False, "Show a table of what the policy writes after each evaluation."
    )
    pad_to_multiple_of: int | None = option(None, "Round the width of a batch up to a multiple of this.")
    beta: float = option(0.1, "Weight of the comparison of the two answers.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_lengths(self.max_length, self.truncation_mode)
        for name in ("max_prompt_length", "max_completion_length"):
            check_limit(name, getattr(self, name))
        if not self.beta > 0:
            raise ValueError(
                f"beta={self.beta} would not prefer the chosen answer; expected more than 0, such as 0.1"
            )


@dataclass
class Answers:
    """Log-probabilities of P chosen and P rejected answers: sums [P] and averages over each answer's tokens [P]."""

    chosen: Tensor
    rejected: Tensor
    chosen_mean: Tensor
    rejected_mean: Tensor


METRICS = [
    Metric("rewards/chosen", "Σ β · what the loss compares of the chosen answer / P over P pairs"),
    Metric("rewards/rejected", "Σ β · what the loss compares of the rejected answer / P"),
    Metric("rewards/accuracies", "Σ [reward of y_c > reward of y_r] / P"),
    Metric("rewards/margins", "Σ (reward of y_c − reward of y_r) / P"),
    Metric("logps/chosen", "Σ log π(y_c) / P, per answer or per token as the loss compares them"),
    Metric("logps/rejected", "Σ log π(y_r) / P, likewise"),
    Metric("logits/chosen", "Σ_t mean_v z_t,v / tokens of chosen answers; z: what the output layer gives"),
    Metric("logits/rejected", "Σ_t mean_v z_t,v / tokens of rejected answers"),
    Metric("nll_loss", "Σ over pairs of (−log π(y_c) / tokens of y_c) / P"),
    Metric("num_tokens", "tokens seen in training on all ranks since the first step, prompts included"),
    Metric("aux_loss", "mean load-balancing loss of a mixture-of-experts model, per micro-batch"),
]


class ReferenceFreeTrainer(PostTrainer):
    """Trains a policy on pairs of answers without a reference; a subclass says what the losses and rewards of `Answers` are."""

    counted = ("tokens_seen",)
    metrics: ClassVar[list[Metric]] = METRICS

    def __init__(
        self,
        model: Any,
        args: Any,
        *,
        train_dataset: Any,
        eval_dataset: Any,
        processing_class: Any,
        peft_config: Any,
        **hf: Any,
    ) -> None:
        tokenizer = pair_tokenizer(processing_class, model, None)
        self.pad_id = tokenizer.pad_token_id
        self.reports: dict[str, DataReport] = {}
        train_dataset = pair_data(train_dataset, tokenizer, args, "train_dataset", self.reports)
        eval_dataset = pair_data(eval_dataset, tokenizer, args, "eval_dataset", self.reports)
        self.tokens_seen = torch.zeros((), dtype=torch.int64)
        policy = build_policy(model, args, tokenizer, peft_config)
        for name, rows in (("train_dataset", train_dataset), ("eval_dataset", eval_dataset)):
            mapped(rows, lambda part, n: check_positions(policy, part, n, type(args).__name__), name)
        super().__init__(
            policy,
            args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            **hf,
        )

    # ---- what a subclass says ------------------------------------------------------------------------------------------

    def losses(self, answers: Answers) -> tuple[Tensor, Metrics]:
        """[P], and the metrics that only this trainer has."""
        raise TypeError(f"{type(self).__name__} must define losses(answers)")

    def values(self, answers: Answers) -> tuple[Tensor, Tensor]:
        """([P], [P]): what the loss compares, of the chosen and of the rejected answers; β times that are the rewards."""
        return self.compared(answers)

    def compared(self, answers: Answers) -> tuple[Tensor, Tensor]:
        """([P], [P]): the log-probabilities that the loss is about: per token."""
        return answers.chosen_mean, answers.rejected_mean

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
        """Σ over pairs of `losses`."""
        lm = base_causal_lm(model)
        scores = self.score(model, batch.tokens, value_head=mean_logit(lm))
        answers = answers_of(batch, scores)
        losses, metrics = self.losses(answers)
        metrics |= self._described(batch, answers, scores)
        total = losses.sum()
        if scores.aux_loss is not None:
            total = total + getattr(lm.config, "router_aux_loss_coef", 0.0) * scores.aux_loss * len(batch)
            metrics["aux_loss"] = (scores.aux_loss.detach(), 1.0)
        if model.training:
            seen = batch.tokens.attention_mask.sum()
            self.tokens_seen = self.tokens_seen.to(seen.device) + seen
        return LossOutput(total, metrics)

    @torch.no_grad()
    def _described(self, batch: PairBatch, answers: Answers, scores: Scores) -> Metrics:
        count, beta = len(batch), self.args.beta
        rewards, logps = self.values(answers), self.compared(answers)
        logits = scores.values.sum(1).chunk(2)  # type: ignore[union-attr]
        tokens = batch.tokens.loss_mask.sum(1).chunk(2)
        metrics: Metrics = {
            "rewards/accuracies": ((rewards[0] > rewards[1]).sum(), count),
            "rewards/margins": (beta * (rewards[0] - rewards[1]).sum(), count),
            "nll_loss": (-answers.chosen_mean.sum(), count),
        }
        for i, side in enumerate(("chosen", "rejected")):
            metrics[f"rewards/{side}"] = (beta * rewards[i].sum(), count)
            metrics[f"logps/{side}"] = (logps[i].sum(), count)
            metrics[f"logits/{side}"] = (logits[i].sum(), tokens[i].sum())
        return metrics

    def predictions(self, model: nn.Module, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """(rewards [P, 2] of chosen and rejected, labels [P]: 0, the column of the better one)."""
        values = self.values(answers_of(batch, self.score(model, batch.tokens)))
        rewards = self.args.beta * torch.stack(values, 1)
        return rewards, torch.zeros(len(batch), dtype=torch.long, device=rewards.device)

    # ---- what is shown, and what a resumed run has to know -------------------------------------------------------------

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        if self.args.generate_during_eval:
            policy = self.accelerator.unwrap_model(self.model)
            show_samples(self, dataloader.dataset, {"policy": lambda: evaluation(policy)})
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs["num_tokens"] = float(self.sum_over_ranks(self.tokens_seen))
        super().log(logs, start_time)

    def extra_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, plain = super().extra_state()
        return tensors, {**plain, "tokens_seen": self.tokens_seen.item()}

    def load_extra_state(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        super().load_extra_state(tensors, plain)
        self.tokens_seen.fill_(plain["tokens_seen"])


def answers_of(batch: PairBatch, scores: Scores) -> Answers:
    """The batch's answers, from the scores of its rows."""
    sums = scores.logps.sum(1)
    # A pair without a prompt whose answer is one token has nothing that could be trained: 0 / 1, not 0 / 0.
    means = sums / batch.tokens.loss_mask.sum(1).clamp(min=1)
    return Answers(*sums.chunk(2), *means.chunk(2))
