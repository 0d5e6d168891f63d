"""Contrastive preference optimisation and its relatives: DPO's comparison without its reference."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import TrainingArguments

from ..losses.binding import bound, knobs_of
from ..losses.reference_free import CPO_LOSSES, alpha_reward
from ..types import Metrics, PairBatch
from .config import adopt, config, option
from .old_arguments import takes_old_arguments
from .reference_free import Answers, PairwiseConfig, ReferenceFreeTrainer

logger = logging.getLogger(__name__)
KNOBS = {"label_smoothing": 0.0, "simpo_gamma": 0.5}
"""Fields that only some losses read, with their defaults."""


@config
class CPOConfig(PairwiseConfig):
    """Arguments of `CPOTrainer`."""

    label_smoothing: float = option(0.0, "Share of pairs that are labelled the wrong way round.")
    loss_type: str = option(
        "sigmoid",
        "sigmoid, hinge: sums of log-probabilities; ipo, simpo: averages over tokens; alphapo: simpo with cpo_alpha 0.",
        choices=(*CPO_LOSSES, "alphapo"),
    )
    cpo_alpha: float = option(1.0, "Weight of the chosen answer's negative log-likelihood per token.")
    simpo_gamma: float = option(0.5, "The margin that SimPO asks for.")
    alpha: float = option(
        0.0, "AlphaPO: compares (1 - p^-alpha) / alpha of the probability per token; 0: its logarithm."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss_type == "alphapo":
            if self.cpo_alpha not in (0.0, 1.0):
                raise ValueError(
                    f"loss_type='alphapo' means cpo_alpha=0, found cpo_alpha={self.cpo_alpha}; write loss_type='simpo'"
                )
            if self.alpha == 0.0:
                logger.warning("loss_type='alphapo' with alpha=0 is SimPO; write alpha=0.25, say")
            self.loss_type, self.cpo_alpha = "simpo", 0.0
        self._check()

    def _check(self) -> None:
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing={self.label_smoothing}: expected at least 0 and below 0.5")
        if self.cpo_alpha < 0:
            raise ValueError(
                f"cpo_alpha={self.cpo_alpha} would make chosen answers less likely; expected 0 or more"
            )
        read = knobs_of(CPO_LOSSES[self.loss_type].function)
        for name, default in KNOBS.items():
            if name not in read and getattr(self, name) != default:
                able = [n for n, loss in CPO_LOSSES.items() if name in knobs_of(loss.function)]
                raise ValueError(
                    f"{name}={getattr(self, name)} would do nothing with loss_type={self.loss_type!r}; leave it out, or write "
                    f"loss_type={' or '.join(map(repr, able))}"
                )


class CPOTrainer(ReferenceFreeTrainer):
    """Trains a policy on pairs of answers without a reference: the comparison named by `loss_type` (CPO, SLiC's hinge, IPO,
    SimPO; with alpha, AlphaPO) + cpo_alpha · the chosen answer's negative log-likelihood per token.

    `model` may be a name; `args` a plain TrainingArguments. `reports` tell what became of the data.
    """

    @takes_old_arguments(CPOConfig)
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
        args = adopt(args, CPOConfig)
        self.filed = CPO_LOSSES[args.loss_type]
        self.pair_loss = bound(self.filed.function, vars(args), f"loss_type={args.loss_type!r}")
        super().__init__(
            model,
            args,
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
        """[P]: the comparison + cpo_alpha · −log π(chosen) / its tokens."""
        return self.pair_loss(*self.values(answers)) - self.args.cpo_alpha * answers.chosen_mean, {}

    def values(self, answers: Answers) -> tuple[Tensor, Tensor]:
        """Log-probabilities; with alpha, AlphaPO's reward, which is one of averages whichever loss compares it."""
        alpha = self.args.alpha
        if alpha != 0.0:
            return alpha_reward(answers.chosen_mean, alpha), alpha_reward(answers.rejected_mean, alpha)
        return self.compared(answers)

    def compared(self, answers: Answers) -> tuple[Tensor, Tensor]:
        """Averages over tokens where the loss is one of averages, sums elsewhere."""
        if self.filed.per_token or self.args.alpha != 0.0:
            return answers.chosen_mean, answers.rejected_mean
        return answers.chosen, answers.rejected
