"""Where losses on groups of samples are filed, what they may see, and how their keyword arguments find their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ..types import Record
from .binding import bound, knobs_of

Per = Literal["row", "token", "rollout", "length", "sum"]
"""What the divisor of an optimizer step counts:

- `row`: rows; each is the mean over its tokens.
- `token`: the trained tokens of the optimizer step, of all its micro-batches and ranks.
- `rollout`: the trained tokens of the whole rollout, divided by the number of optimizer steps that one pass over it takes.
- `length`: rows × max_completion_length.
- `sum`: rows; each is the sum over its tokens.
"""


@dataclass
class PolicyStep(Record):
    """All that a loss on sampled rows may see. logps [B, T] are differentiable; old_logps [B, T] are those of the policy that the
    ratio is taken against; advantages [B, T], or [B] for whole rows; mask [B, T] bool, True on the trained tokens.

    What stands outside `mask` is never read. Raises ValueError where shapes disagree.
    """

    logps: Tensor
    old_logps: Tensor
    advantages: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        shape = self.logps.shape
        fits = self.old_logps.shape == shape and self.mask.shape == shape
        if len(shape) != 2 or not fits or self.advantages.shape not in (shape, shape[:1]):
            found = {name: tuple(value.shape) for name, value in vars(self).items()}
            raise ValueError(f"a policy step takes [B, T] tensors (advantages also [B]), found {found}")

    def __len__(self) -> int:
        return self.logps.shape[0]

    @property
    def lengths(self) -> Tensor:
        """[B] int64: trained tokens per row."""
        return self.mask.sum(1)

    def log_ratio(self) -> Tensor:
        """[B, T]: log π − log π_old, 0 outside the mask."""
        return torch.where(self.mask, self.logps - self.old_logps, 0.0)

    def token_advantages(self) -> Tensor:
        """[B, T]: each token's advantage, 0 outside the mask."""
        given = self.advantages if self.advantages.dim() == 2 else self.advantages[:, None]
        return torch.where(self.mask, given, 0.0)

    def row_advantages(self) -> Tensor:
        """[B]: each row's advantage; of advantages per token, their mean over the row's trained tokens."""
        if self.advantages.dim() == 1:
            return self.advantages
        return self.token_advantages().sum(1) / self.lengths.clamp(min=1)


@dataclass
class Terms(Record):
    """What a group loss returns, each [B, T] and 0 outside the mask, un-reduced: the loss; ratio π/π_old (differentiable; of the
    whole row where the loss takes it so); low and high, 1 where the ratio is clipped below with A < 0, above with A > 0; extra,
    {metric: values} that only this loss has.
    """

    loss: Tensor
    ratio: Tensor
    low: Tensor
    high: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)


GroupFunction = Callable[..., Terms]
Rule = tuple[Callable[[Any], bool], str]

LEVELS = ("token", "sequence")
RULES: dict[str, Rule] = {
    "epsilon": (lambda v: v >= 0, "a number of at least 0, such as 0.2"),
    "epsilon_high": (
        lambda v: v is None or v >= 0,
        "None (as epsilon) or a number of at least 0, such as 0.28",
    ),
    "importance_sampling_level": (lambda v: v in LEVELS, f"one of {', '.join(LEVELS)}"),
    "sapo_temperature_pos": (lambda v: v > 0, "a number above 0, such as 1.0"),
    "sapo_temperature_neg": (lambda v: v > 0, "a number above 0, such as 1.05"),
    "vespo_k_pos": (lambda v: v >= 0, "a number of at least 0, such as 2.0"),
    "vespo_k_neg": (lambda v: v >= 0, "a number of at least 0, such as 3.0"),
    "vespo_lambda_pos": (lambda v: v >= 0, "a number of at least 0, such as 3.0"),
    "vespo_lambda_neg": (lambda v: v >= 0, "a number of at least 0, such as 2.0"),
    "max_completion_length": (lambda v: v is not None and v >= 1, "a number of at least 1"),
}
"""{knob: (what it must fulfil, in words)}."""


@dataclass(frozen=True)
class GroupLoss:
    """A filed loss, what the divisor of its optimizer step counts, and the rules that only its knobs have."""

    function: GroupFunction
    per: Per
    rules: Mapping[str, Rule]

    @property
    def knobs(self) -> tuple[str, ...]:
        """The config fields that it reads."""
        return knobs_of(self.function) + (("max_completion_length",) if self.per == "length" else ())


GRPO_LOSSES: dict[str, GroupLoss] = {}
"""{loss_type: loss}."""


def grpo_loss(
    *, per: Per, rules: Mapping[str, Rule] | None = None
) -> Callable[[GroupFunction], GroupFunction]:
    """File a function of a `PolicyStep` that returns `Terms` under its name, which becomes a `loss_type`; its keyword-only
    arguments are config fields. `rules` says what its knobs must fulfil, where that is not what `RULES` says."""

    def file(function: GroupFunction) -> GroupFunction:
        GRPO_LOSSES[function.__name__] = GroupLoss(function, per, rules or {})
        return function

    return file


def token_weights(mask: Tensor, per: Per) -> Tensor:
    """[B, T] float32: what each trained token's loss is multiplied by before the sum: 1/|o_i| for `row`, else 1."""
    weight = mask.float()
    return weight / mask.sum(1, keepdim=True).clamp(min=1) if per == "row" else weight


@dataclass(frozen=True)
class GroupObjective:
    """A group loss with its knobs bound: call it on a `PolicyStep`. `length` is max_completion_length where `per` is "length"."""

    name: str
    per: Per
    function: GroupFunction
    length: int | None = None

    def __call__(self, step: PolicyStep) -> Terms:
        return self.function(step)

    def weights(self, mask: Tensor) -> Tensor:
        """[B, T] float32: `token_weights` of this loss."""
        return token_weights(mask, self.per)

    def items(self, mask: Tensor) -> Tensor:
        """[B] int64: what each row adds to the divisor of its optimizer step (for `rollout`: of its rollout)."""
        tokens = mask.sum(1)
        if self.per in ("token", "rollout"):
            return tokens
        return torch.full_like(tokens, 1 if self.length is None else self.length)


def bind_group_loss(name: str, fields: Mapping[str, Any]) -> GroupObjective:
    """The loss called `name` with its knobs taken from `fields` (a config's), by name.

    Raises ValueError for a loss that nobody knows, a knob that the config does not have, and a value that means nothing.
    """
    if name not in GRPO_LOSSES:
        raise ValueError(f"loss_type={name!r} is not known; expected one of {', '.join(GRPO_LOSSES)}")
    filed = GRPO_LOSSES[name]
    function = bound(filed.function, fields, f"loss_type={name!r}")
    if filed.per == "length" and "max_completion_length" not in fields:
        raise ValueError(f"loss_type={name!r} takes max_completion_length, which the config does not have")
    for knob in filed.knobs:
        _check(name, knob, fields, {**RULES, **filed.rules})
    _check_delta(name, filed, fields)
    length = int(fields["max_completion_length"]) if filed.per == "length" else None
    return GroupObjective(name, filed.per, function, length)


def _check(name: str, knob: str, fields: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    if knob not in fields or knob not in rules:
        return
    fulfilled, words = rules[knob]
    if not fulfilled(fields[knob]):
        raise ValueError(f"{knob}={fields[knob]!r} means nothing for loss_type={name!r}; write {words}")


def _check_delta(name: str, filed: GroupLoss, fields: Mapping[str, Any]) -> None:
    delta = fields.get("delta")
    if delta is None:
        return
    able = [other for other, loss in GRPO_LOSSES.items() if "delta" in loss.knobs]
    if name not in able:
        raise ValueError(
            f"delta={delta} bounds a clipped ratio and loss_type={name!r} has none; leave delta=None, or take one of "
            f"{', '.join(able)}"
        )
    high = fields.get("epsilon_high")
    least = 1 + (fields["epsilon"] if high is None else high)
    if not delta > least:
        raise ValueError(
            f"delta={delta} bounds the ratio above the upper clip of {least:g} (1 + epsilon_high); write a number above "
            f"that, such as 4.0, or None"
        )
