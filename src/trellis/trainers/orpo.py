"""Odds-ratio preference optimisation: fine-tuning on the chosen answer and a comparison with the rejected one, in one loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor
from transformers import TrainingArguments

from ..losses.reference_free import log_odds_ratio
from ..metrics import Metric
from ..types import Metrics, PairBatch
from .config import adopt, config
from .old_arguments import takes_old_arguments
from .reference_free import Answers, PairwiseConfig, ReferenceFreeTrainer


@config
class ORPOConfig(PairwiseConfig):
    """Arguments of `ORPOTrainer`; beta is the paper's λ."""


class ORPOTrainer(ReferenceFreeTrainer):
    """Trains a policy on pairs of answers: the chosen one's negative log-likelihood per token − β log σ of the log-odds ratio.

    `model` may be a name; `args` a plain TrainingArguments. `reports` tell what became of the data.
    """

    metrics: ClassVar[list[Metric]] = [
        *ReferenceFreeTrainer.metrics,
        Metric("log_odds_ratio", "mean log σ(log-odds of the chosen − log-odds of the rejected)"),
        Metric("log_odds_chosen", "mean log-odds of the chosen − log-odds of the rejected"),
    ]

    @takes_old_arguments(ORPOConfig)
    def __init__(
        self,
        model: Any,
        args: TrainingArguments | None = None,
        data_collator: Callable[[list[dict[str, Any]]], PairBatch] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        preprocess_logits_for_metrics: Callable[[Tensor, Tensor], Tensor] | None = None,
        peft_config: Any = None,
        compute_metrics: Callable[..., dict[str, float]] | None = None,
    ) -> None:
        super().__init__(
            model,
            adopt(args, ORPOConfig),
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
            peft_config=peft_config,
            compute_metrics=compute_metrics,
        )

    def losses(self, answers: Answers) -> tuple[Tensor, Metrics]:
        """[P]: −log π(chosen) / its tokens − β log σ(Λ). Hong et al. 2024 (2403.07691), eq. 6."""
        better, ratio = log_odds_ratio(answers.chosen_mean, answers.rejected_mean)
        metrics: Metrics = {
            "log_odds_ratio": (better.detach().sum(), len(better)),
            "log_odds_chosen": (ratio.detach().sum(), len(ratio)),
        }
        return -answers.chosen_mean - self.args.beta * better, metrics
