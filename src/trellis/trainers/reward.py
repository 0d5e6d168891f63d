"""Reward modelling: a sequence classifier learns which of two answers people prefer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import TrainingArguments, set_seed

from ..data import DataReport, collate_pairs, prepare_pairs
from ..data.templates import adapted_tokenizer
from ..losses.reward import bradley_terry, centering
from ..metrics import Metric
from ..models import (
    add_adapter,
    base_causal_lm,
    disable_dropout,
    distinct_pad,
    fit_embeddings,
    load_classifier,
    load_tokenizer,
)
from ..scoring import sequence_scores
from ..types import LossOutput, PairBatch
from .base import PostTrainer
from .config import TrellisConfig, adopt, config, option
from .old_arguments import takes_old_arguments
from .unused import NO_REFERENCE


@config
class RewardConfig(TrellisConfig):
    """Arguments of `RewardTrainer`."""

    unused: ClassVar[Mapping[str, str]] = {
        "cast_lm_head_to_fp32": "a reward model has no vocabulary head; its verdicts are added up in float32",
        **NO_REFERENCE,
    }

    learning_rate: float = option(1e-4, "The initial learning rate.")
    model_init_kwargs: dict[str, Any] | str | None = option(
        None, "Arguments for from_pretrained where the model is a name; float32 unless they hold a dtype."
    )
    chat_template_path: str | None = option(
        None, "A Jinja file, or a tokenizer's directory or hub id, whose chat template to use."
    )
    disable_dropout: bool = option(True, "Set every dropout of the model to 0.")
    dataset_num_proc: int | None = option(None, "Processes that tokenize the data.")
    eos_token: str | None = option(None, "The token that ends an answer; default: the tokenizer's.")
    pad_token: str | None = option(
        None, "The padding token; default: the tokenizer's, or another one where that also ends answers."
    )
    max_length: int | None = option(
        1024, "Pairs of which one side has more tokens are left out and counted; None keeps all."
    )
    pad_to_multiple_of: int | None = option(None, "Round the width of a batch up to a multiple of this.")
    center_rewards_coefficient: float | None = option(
        None, "Weight of (r_chosen + r_rejected)², which keeps rewards around 0 (0.01 is usual); None: off."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.center_rewards_coefficient is not None and self.center_rewards_coefficient < 0:
            raise ValueError(
                f"center_rewards_coefficient={self.center_rewards_coefficient} would push rewards away from 0; "
                "expected 0 or more, such as 0.01"
            )


class Extremes:
    """The smallest and largest value since the last reset, over all ranks."""

    def __init__(self) -> None:
        self.found = torch.full((2,), -torch.inf)  # −min and max, so that both grow

    def add(self, x: Tensor) -> None:
        """Look at the values of `x`."""
        self.found = torch.maximum(self.found.to(x.device), torch.stack([-x.min(), x.max()]))

    def read(self, gather: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """min_reward and max_reward; nothing where nothing was added. `gather` stacks a tensor of all ranks."""
        low, high = gather(self.found[None].float()).amax(0).tolist()
        return {} if high == -torch.inf else {"min_reward": -low, "max_reward": high}


class RewardTrainer(PostTrainer):
    """Trains a sequence classifier with one score on pairs: −log σ(r_chosen − r_rejected − margin) per pair, each score read at
    the last token of its answer.

    `model` may be a name, a classifier, or a causal language model, whose trunk is copied. What is saved is a stock classifier
    of transformers, with a padding token that is not the end token. `reports` tell what became of the data.
    """

    counted = ("tokens_seen", "extremes")
    metrics: ClassVar[list[Metric]] = [
        Metric(
            "mean_reward",
            "Σ r / 2P over both answers of P pairs; min_reward and max_reward: of the same scores",
        ),
        Metric("accuracy", "Σ [r_chosen > r_rejected] / P"),
        Metric("margin", "Σ (r_chosen − r_rejected) / P"),
    ]

    @takes_old_arguments(RewardConfig)
    def __init__(
        self,
        model: Any,
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
        args = adopt(args, RewardConfig)
        tokenizer = self._tokenizer(processing_class, model, args)
        self.pad_id = tokenizer.pad_token_id
        self.reports: dict[str, DataReport] = {}
        train_dataset = self._prepare(train_dataset, tokenizer, args, "train_dataset")
        eval_dataset = self._prepare_eval(eval_dataset, tokenizer, args)
        self.extremes, self.tokens_seen = Extremes(), torch.zeros((), dtype=torch.int64)
        super().__init__(
            self._model(model, args, tokenizer, peft_config),
            args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            data_collator=data_collator,
            callbacks=callbacks,
            optimizers=optimizers,
            compute_metrics=compute_metrics,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        )

    # ---- preparation ---------------------------------------------------------------------------------------------------

    def _tokenizer(self, processing_class: Any, model: Any, args: RewardConfig) -> Any:
        tokenizer = adapted_tokenizer(
            load_tokenizer(processing_class, model),
            chat_template_path=args.chat_template_path,
            eos_token=args.eos_token,
            pad_token=args.pad_token,
        )
        return distinct_pad(tokenizer)

    def _model(self, model: Any, args: RewardConfig, tokenizer: Any, peft_config: Any) -> nn.Module:
        set_seed(args.seed)  # a fresh adapter is drawn before the loop below sets it
        init_kwargs: Any = args.model_init_kwargs
        model = load_classifier(model, init_kwargs)
        fit_embeddings(model, tokenizer, peft_config)
        model = add_adapter(model, peft_config, "SEQ_CLS")
        base_causal_lm(model).config.get_text_config().pad_token_id = tokenizer.pad_token_id
        if args.disable_dropout:
            disable_dropout(model)
        return model

    def _prepare(self, dataset: Any, tokenizer: Any, args: RewardConfig, name: str) -> Any:
        if dataset is None:
            return None
        with args.main_process_first(desc=f"preparing {name}"):
            prepared, self.reports[name] = prepare_pairs(
                dataset, tokenizer, max_length=args.max_length, num_proc=args.dataset_num_proc, name=name
            )
        return prepared

    def _prepare_eval(self, data: Any, tokenizer: Any, args: RewardConfig) -> Any:
        if not isinstance(data, Mapping):
            return self._prepare(data, tokenizer, args, "eval_dataset")
        return {
            key: self._prepare(part, tokenizer, args, f"eval_dataset[{key!r}]") for key, part in data.items()
        }

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
        """Σ over pairs of −log σ(r_c − r_r − margin) + coefficient · (r_c + r_r)²."""
        rewards = self.rewards(model, batch)
        chosen, rejected = rewards[: len(batch)], rewards[len(batch) :]
        losses = bradley_terry(chosen, rejected, batch.margin)
        if self.args.center_rewards_coefficient is not None:
            losses = losses + self.args.center_rewards_coefficient * centering(chosen, rejected)
        rewards, difference = rewards.detach(), (chosen - rejected).detach()
        self.extremes.add(rewards)
        if model.training:
            seen = batch.tokens.attention_mask.sum()
            self.tokens_seen = self.tokens_seen.to(seen.device) + seen
        return LossOutput(
            losses.sum(),
            {
                "mean_reward": (rewards.sum(), len(rewards)),
                "accuracy": ((difference > 0).sum(), len(batch)),
                "margin": (difference.sum(), len(batch)),
            },
        )

    def rewards(self, model: nn.Module, batch: PairBatch) -> Tensor:
        """[2P] float32: the scores of the P chosen answers, then of the P rejected ones, in one forward pass."""
        with self.accelerator.autocast():
            return sequence_scores(model, batch.tokens, layout=self.args.layout)

    def predictions(self, model: nn.Module, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """(scores [P, 2] of chosen and rejected, labels [P]: 0, the column of the better one)."""
        scores = self.rewards(model, batch).reshape(2, -1).T
        return scores, torch.zeros(len(batch), dtype=torch.long, device=scores.device)

    # ---- what the meter cannot add up ----------------------------------------------------------------------------------

    def _read_extremes(self) -> dict[str, float]:
        one = self.accelerator.num_processes == 1
        return self.extremes.read(
            lambda x: x if one else self.accelerator.gather(x.to(self.accelerator.device))
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs["num_tokens"] = float(self.sum_over_ranks(self.tokens_seen))
            logs.update(self._read_extremes())
            self.extremes = Extremes()
        super().log(logs, start_time)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        training, self.extremes = self.extremes, Extremes()
        try:
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
            found = self._read_extremes()
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in found.items()})
        finally:
            self.extremes = training
        return output

    def extra_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, plain = super().extra_state()
        extremes = self.extremes.found.clone()
        return {**tensors, "extremes": extremes}, {**plain, "tokens_seen": self.tokens_seen.item()}

    def load_extra_state(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        super().load_extra_state(tensors, plain)
        self.extremes.found = tensors["extremes"]
        self.tokens_seen.fill_(plain["tokens_seen"])
