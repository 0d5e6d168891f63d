"""Supervised fine-tuning: the log-probability of what was written, summed over the trained tokens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from transformers import TrainingArguments, set_seed

from ..data import (
    DataReport,
    collate_tokens,
    prepare_language_modeling,
    tokens_from_labels,
    tokens_of_row,
    turn_end_ids,
)
from ..data.templates import adapted_tokenizer
from ..losses.supervised import get_supervised_loss
from ..metrics import Metric
from ..models import base_causal_lm, fit_embeddings, learned_positions, load_causal_lm, load_tokenizer
from ..types import LossOutput, Metrics, Record, TokenBatch
from .base import PostTrainer
from .config import adopt
from .old_arguments import takes_old_arguments
from .sft_config import SFTConfig

logger = logging.getLogger(__name__)


__all__ = ["SFTConfig", "SFTTrainer"]


class SFTTrainer(PostTrainer):
    """Trains a causal language model on texts, on completions of prompts, or on what the assistant says in conversations.

    `model` may be a name; `args` a plain TrainingArguments; `formatting_func` turns a row into text; `compute_loss_func` takes
    (outputs, labels, num_items_in_batch) as in transformers and needs the model's logits of whole rows. `report` and
    `eval_reports` tell what became of the data.
    """

    counted = ("tokens_seen",)
    metrics: ClassVar[list[Metric]] = [
        Metric("entropy", "Σ H(p_t) / trained tokens, in nats"),
        Metric("mean_token_accuracy", "Σ [argmax p_t = token t] / trained tokens"),
        Metric("num_tokens", "tokens seen in training on all ranks since the first step, prompts included"),
        Metric("aux_loss", "mean load-balancing loss of a mixture-of-experts model, per micro-batch"),
    ]

    @takes_old_arguments(SFTConfig)
    def __init__(
        self,
        model: Any,
        args: TrainingArguments | None = None,
        data_collator: Callable[..., Any] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        compute_loss_func: Callable[..., Tensor] | None = None,
        compute_metrics: Callable[..., dict[str, float]] | None = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[Any, dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[[Tensor, Tensor], Tensor] | None = None,
        peft_config: Any = None,
        formatting_func: Callable[[Any], str] | None = None,
    ) -> None:
        args = adopt(args, SFTConfig)
        tokenizer = self._tokenizer(processing_class, model, args)
        self.pad_id = tokenizer.pad_token_id
        self.token_loss = get_supervised_loss(args.loss_type)
        self.user_loss = compute_loss_func
        self.tokens_seen = torch.zeros((), dtype=torch.int64)
        self.report: DataReport | None = None
        self.eval_reports: dict[str, DataReport | None] = {}
        if train_dataset is not None:
            _require_steps(train_dataset, args)
            train_dataset, self.report = self._prepare(
                train_dataset, tokenizer, args, formatting_func, "train_dataset"
            )
        eval_dataset = self._prepare_eval(eval_dataset, tokenizer, args, formatting_func)
        model = self._model(model, args, tokenizer, peft_config)
        _check_positions(model, train_dataset, args)
        super().__init__(
            model,
            args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            data_collator=None if data_collator is None else _converting(data_collator, self.pad_id),
            callbacks=callbacks,
            optimizers=optimizers,
            compute_metrics=compute_metrics,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        )

    # ---- preparation ---------------------------------------------------------------------------------------------------

    def _tokenizer(self, processing_class: Any, model: Any, args: SFTConfig) -> Any:
        return adapted_tokenizer(
            load_tokenizer(processing_class, model),
            chat_template_path=args.chat_template_path,
            eos_token=args.eos_token,
            pad_token=args.pad_token,
        )

    def _model(self, model: Any, args: SFTConfig, tokenizer: Any, peft_config: Any) -> nn.Module:
        init = {**cast(dict[str, Any], args.model_init_kwargs or {})}
        set_seed(args.seed)  # a fresh adapter and new embeddings are drawn before the loop below sets it
        model = load_causal_lm(model, init or None)
        fit_embeddings(model, tokenizer, peft_config)
        if args.eos_token is not None or args.chat_template_path is not None:
            _learn_to_stop(base_causal_lm(model), tokenizer)
        return model if peft_config is None else load_causal_lm(model, peft_config=peft_config)

    def _prepare(
        self,
        dataset: Any,
        tokenizer: Any,
        args: SFTConfig,
        formatting_func: Callable[[Any], str] | None,
        name: str,
    ) -> tuple[Any, Any]:
        if cast(dict[str, Any], args.dataset_kwargs or {}).get("skip_prepare_dataset"):
            return dataset, None
        packing = args.packing if name == "train_dataset" or args.eval_packing is None else args.eval_packing
        with args.main_process_first(desc=f"preparing {name}"):
            if args.shuffle_dataset and name == "train_dataset":
                dataset = _shuffled(dataset, args.seed)
            return prepare_language_modeling(
                dataset,
                tokenizer,
                max_length=args.max_length,
                truncation_mode=args.truncation_mode,
                text_field=args.dataset_text_field,
                completion_only=args.completion_only_loss,
                assistant_only=args.assistant_only_loss,
                packing=args.packing_strategy if packing else None,
                formatting_func=formatting_func,
                num_proc=args.dataset_num_proc,
                name=name,
            )

    def _prepare_eval(self, data: Any, tokenizer: Any, args: SFTConfig, formatting_func: Any) -> Any:
        if data is None:
            return None
        several = isinstance(data, Mapping)
        prepared = {}
        for key, part in data.items() if several else [("", data)]:
            name = f"eval_dataset[{key!r}]" if several else "eval_dataset"
            prepared[key], self.eval_reports[key] = self._prepare(
                part, tokenizer, args, formatting_func, name
            )
        return prepared if several else prepared[""]

    # ---- the three sentences -------------------------------------------------------------------------------------------

    def collate(self, rows: list[dict[str, Any]]) -> TokenBatch:
        """One TokenBatch; a packed row becomes one row per segment."""
        rows = [row if "loss_mask" in row else tokens_of_row(row) for row in rows]
        return collate_tokens(rows, self.pad_id, self.args.pad_to_multiple_of)

    def items(self, batch: TokenBatch) -> Tensor:
        """Trained tokens."""
        return batch.loss_mask.sum()

    def loss(self, model: nn.Module, batch: TokenBatch) -> LossOutput:
        """Σ over trained tokens of the loss named by `loss_type`."""
        if model.training:
            self.tokens_seen = self.tokens_seen.to(batch.input_ids.device) + batch.attention_mask.sum()
        if self.user_loss is not None:
            return self._loss_of_user(model, batch, self.user_loss)
        scores = self.score(model, batch, entropy=True, hits=True)
        count = batch.loss_mask.sum()
        total = (self.token_loss(scores.logps) * batch.loss_mask).sum()
        assert scores.entropy is not None
        assert scores.hits is not None
        metrics: Metrics = {
            "entropy": (scores.entropy.detach().sum(), count),
            "mean_token_accuracy": (scores.hits.detach().sum(), count),
        }
        if scores.aux_loss is not None:
            weight = getattr(base_causal_lm(model).config, "router_aux_loss_coef", 0.0)
            total = total + weight * scores.aux_loss * count
            metrics["aux_loss"] = (scores.aux_loss.detach(), 1.0)
        return LossOutput(total, metrics)

    def _loss_of_user(
        self, model: nn.Module, batch: TokenBatch, function: Callable[..., Tensor]
    ) -> LossOutput:
        with self.accelerator.autocast():
            outputs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        count = batch.loss_mask.sum()
        # A mean over the items it is told about, or over the micro-batch's own: both times `count` give the sum.
        loss = function(outputs, labels_of(batch), num_items_in_batch=count)
        return LossOutput(loss * count)

    def predictions(self, model: nn.Module, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """(logits [B, T, V], labels [B, T] with -100 on what is not trained), unshifted as in transformers."""
        with self.accelerator.autocast():
            logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        return logits.float(), labels_of(batch)

    # ---- what a resumed run has to know --------------------------------------------------------------------------------

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


def _require_steps(dataset: Any, args: SFTConfig) -> None:
    if not hasattr(dataset, "__len__") and args.max_steps <= 0:
        raise ValueError(
            f"train_dataset is a stream, which has no length: found max_steps={args.max_steps}, expected a positive number. "
            "Write SFTConfig(max_steps=1000)."
        )


def _check_positions(model: nn.Module, rows: Any, args: SFTConfig) -> None:
    """Raises ValueError for a row that is longer than the positions a model has learned (rotary ones do not end)."""
    limit = learned_positions(model)
    if (
        not limit
        or not hasattr(rows, "__len__")
        or (args.max_length is not None and args.max_length <= limit)
    ):
        return
    for i in range(len(rows)):
        row = rows[i]
        longest = max(row.get("seq_lengths") or [len(row["input_ids"])])
        if longest > limit:
            raise ValueError(
                f"row {i} has {longest} tokens, but {type(model).__name__} has learned {limit} positions (found "
                f"max_length={args.max_length}). Write SFTConfig(max_length={limit})."
            )


def _shuffled(dataset: Any, seed: int) -> Any:
    if hasattr(dataset, "shuffle"):
        return dataset.shuffle(seed=seed)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()
    return [dataset[i] for i in order]


def _learn_to_stop(model: Any, tokenizer: Any) -> None:
    """The saved generation config also ends at the token that the rows now end in."""
    old = model.generation_config.eos_token_id
    known = [] if old is None else [old] if isinstance(old, int) else list(old)
    ends = [i for i in (tokenizer.eos_token_id, *sorted(turn_end_ids(tokenizer))) if i is not None]
    model.generation_config.eos_token_id = list(dict.fromkeys([*known, *ends]))


def labels_of(batch: TokenBatch) -> Tensor:
    """[B, T] input_ids with -100 outside the loss mask."""
    return batch.input_ids.masked_fill(~batch.loss_mask, -100)


def _converting(collator: Callable[..., Any], pad: int) -> Callable[[list[dict[str, Any]]], Any]:
    """A user's collator, given rows in transformers' terms, its answer turned into a TokenBatch."""

    def collate(rows: list[dict[str, Any]]) -> Any:
        rows = [row if "loss_mask" in row else tokens_of_row(row) for row in rows]
        masks = [[1, *row["loss_mask"][1:]] for row in rows]
        given = [{"input_ids": list(row["input_ids"])} for row in rows]
        if not all(all(mask) for mask in masks):
            for row, mask in zip(given, masks, strict=True):
                row["labels"] = [i if m else -100 for i, m in zip(row["input_ids"], mask, strict=True)]
        batch = collator(given)
        return batch if isinstance(batch, Record) else tokens_from_labels(batch, pad)

    return collate
