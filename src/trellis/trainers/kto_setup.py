"""From KTOTrainer's arguments to its parts: labelled answers, the balance of their labels, the reference."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..data import DataReport
from ..data.source import column
from ..data.unpaired import LabelledAnswers, prepare_unpaired
from ..losses.unpaired import UNPAIRED_LOSSES, recommended_weights
from ..metrics import Means, Metric
from ..models import Reference, disable_dropout, is_peft, learned_positions, load_causal_lm
from .dpo_setup import check_positions
from .follow import check_follows
from .kto_config import KTOConfig

logger = logging.getLogger(__name__)


def _margin(means: Means) -> float | None:
    sides = ("rewards/chosen", "rewards/rejected")
    return means[sides[0]] - means[sides[1]] if all(side in means for side in sides) else None


METRICS = [
    Metric("rewards/chosen", "Σ β log π/π_ref of liked answers / their number"),
    Metric("rewards/rejected", "Σ β log π/π_ref of disliked answers / their number"),
    Metric("rewards/margins", "rewards/chosen − rewards/rejected", derive=_margin),
    Metric("logps/chosen", "Σ log π(y) of liked answers / their number, summed over an answer's tokens"),
    Metric("logps/rejected", "Σ log π(y) of disliked answers / their number"),
    Metric("logits/chosen", "Σ_t mean_v z_t,v / tokens of liked answers; z: what the output layer gives"),
    Metric("logits/rejected", "Σ_t mean_v z_t,v / tokens of disliked answers"),
    Metric(
        "kl", "z: max(0, mean log π/π_ref of the step's mismatched prompts and answers), averaged over rows"
    ),
    Metric("entropy", "Σ H(p_t) / tokens of answers, in nats"),
    Metric("num_tokens", "tokens seen in training on all ranks since the first step, prompts included"),
    Metric("aux_loss", "mean load-balancing loss of a mixture-of-experts model, per micro-batch"),
]


def unpaired_data(
    data: Any, tokenizer: Any, args: KTOConfig, name: str, reports: dict[str, DataReport]
) -> Any:
    """LabelledAnswers of a data set, of each of a dict of them, or None; `reports` gains one entry per data set."""
    if data is None:
        return None
    if isinstance(data, Mapping) and name != "train_dataset":
        return {
            key: unpaired_data(part, tokenizer, args, f"{name}[{key!r}]", reports)
            for key, part in data.items()
        }
    with args.main_process_first(desc=f"preparing {name}"):
        rows, reports[name] = prepare_unpaired(
            data,
            tokenizer,
            max_length=args.max_length,
            max_prompt_length=args.max_prompt_length,
            max_completion_length=args.max_completion_length,
            truncation_mode=args.truncation_mode,
            num_proc=args.dataset_num_proc,
            name=name,
        )
    seed = args.seed if UNPAIRED_LOSSES[args.loss_type].wants_kl else None
    return LabelledAnswers(rows, seed, args.max_length)


def fit_positions(policy: nn.Module, data: LabelledAnswers, name: str) -> None:
    """Cut mismatched answers to the positions that a model has learned; raises ValueError where a row's own does not fit."""
    limit = learned_positions(policy)
    if limit is None:
        return
    data.max_length = limit if data.max_length is None else min(data.max_length, limit)
    check_positions(policy, [{**row, "rejected_ids": []} for row in data.as_pairs()], name, "KTOConfig")


def warn_of_imbalance(data: LabelledAnswers | None, args: KTOConfig) -> None:
    """One warning where one kind of label is missing, or where the kinds do not balance (2402.01306, eq. 8), with the weights
    that would balance them."""
    labels = [] if data is None else column(data.rows, "label")
    liked, disliked = sum(labels), len(labels) - sum(labels)
    if not labels:
        return
    if not liked or not disliked:
        kind, missing, push = ("True", "False", "up") if liked else ("False", "True", "down")
        logger.warning(
            "train_dataset: all %d labels are %s. KTO learns from the contrast of liked and disliked answers; with these it can "
            "only push every answer %s, and no weight changes that. Add rows with label=%s.",
            len(labels), kind, push, missing,
        )  # fmt: skip
        return
    ranges = recommended_weights(liked, disliked, args.desirable_weight, args.undesirable_weight)
    if ranges is None:
        return
    (a, b), (c, d) = ranges
    logger.warning(
        "train_dataset: %d answers are liked and %d are not, with weights %g and %g. For balance (desirable_weight × liked at 1 "
        "to 4/3 of undesirable_weight × disliked) write desirable_weight=%.2f to %.2f, or undesirable_weight=%.2f to %.2f.",
        liked, disliked, args.desirable_weight, args.undesirable_weight, a, b, c, d,
    )  # fmt: skip


def check_reference(model: Any, ref_model: Any, args: KTOConfig) -> None:
    """Raises ValueError for a reference that cannot be one, before anything is loaded."""
    if ref_model is not None and ref_model is model and not isinstance(model, str):
        raise ValueError(
            "ref_model is the model that is trained, so it would follow it; pass ref_model=None for a frozen copy (with "
            "peft_config: the model without its adapter), or load the reference a second time"
        )
    if args.ref_model_init_kwargs and not isinstance(ref_model, str):
        raise ValueError(
            "ref_model_init_kwargs say how to load ref_model, which must then be a name; found "
            f"{type(ref_model).__name__}"
        )


def build_reference(policy: nn.Module, ref_model: Any, args: KTOConfig, **adapters: str | None) -> Reference:
    """The reference, to be made before the policy is trained; `adapters` as for `Reference.of`."""
    init: Any = args.ref_model_init_kwargs
    given = load_causal_lm(ref_model, init) if isinstance(ref_model, str) else ref_model
    untouched = given is None and not any(adapters.values()) and not is_peft(policy)
    if args.precompute_ref_log_probs and untouched:
        return Reference("model", policy)  # read once, now, before the first step: no copy
    reference = Reference.of(policy, given, **adapters)
    if args.disable_dropout and reference.model is not None:
        disable_dropout(reference.model)
    if args.sync_ref_model:
        check_follows(reference, policy)
    return reference
