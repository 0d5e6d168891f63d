"""Where losses on pairs are filed, and how their keyword arguments find their values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, overload

from torch import Tensor

from ..types import Pair

PairLoss = Callable[..., Tensor]

SUPPLIED = ("mean_reward", "step")
"""Keyword arguments that the trainer fills at every call: the mean reward βr of all earlier steps, and the step's `PairStep`."""


@dataclass(frozen=True)
class Filed:
    """A loss, its keyword-only arguments, those of them with a default, and whether it is defined for reverse KL alone."""

    function: PairLoss
    knobs: tuple[str, ...]
    optional: frozenset[str]
    reverse_kl_only: bool


DPO_LOSSES: dict[str, Filed] = {}
"""{loss_type: loss}."""


@overload
def dpo_loss(function: PairLoss) -> PairLoss: ...
@overload
def dpo_loss(*, reverse_kl_only: bool = ...) -> Callable[[PairLoss], PairLoss]: ...
def dpo_loss(function: PairLoss | None = None, *, reverse_kl_only: bool = False) -> Any:
    """File a function of a `Pair` under its name, which becomes a `loss_type`.

    Its keyword-only arguments are fields of the config, entries of `loss_kwargs`, or one of `SUPPLIED`. `reverse_kl_only`: it is
    no function of rewards, so another f-divergence means nothing for it.
    """
    if function is None:
        return partial(dpo_loss, reverse_kl_only=reverse_kl_only)
    knobs = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    DPO_LOSSES[function.__name__] = Filed(
        function,
        tuple(p.name for p in knobs),
        frozenset(p.name for p in knobs if p.default is not p.empty),
        reverse_kl_only,
    )
    return function


@dataclass(frozen=True)
class Objective:
    """Σ weight · loss over `parts` (weight, function with its knobs bound, names that the caller supplies)."""

    parts: tuple[tuple[float, PairLoss, tuple[str, ...]], ...]

    def needs(self, name: str) -> bool:
        """Whether a part wants `name`, one of `SUPPLIED`."""
        return any(name in names for _, _, names in self.parts)

    def __call__(self, pair: Pair, **supplied: Any) -> Tensor:
        """[P]: the weighted sum. `supplied` holds at least what is needed."""
        return sum(  # type: ignore[return-value]
            weight * function(pair, **{name: supplied[name] for name in names})
            for weight, function, names in self.parts
        )


def bind(
    names: Sequence[str],
    weights: Sequence[float] | None,
    fields: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
    *,
    divergence: str = "reverse_kl",
) -> Objective:
    """The losses called `names` with their knobs taken from `fields` (a config's) and `extra` (its loss_kwargs), by name.

    Raises ValueError for a loss, a knob or an entry of `extra` that nobody knows, for weights that do not fit, and for a loss
    that the divergence means nothing to.
    """
    extra = dict(extra or {})
    for name in names:
        _check_known(name, divergence)
    if not names:
        raise ValueError(f"loss_type is empty; expected one or more of {', '.join(DPO_LOSSES)}")
    if weights is not None and len(weights) != len(names):
        raise ValueError(f"loss_weights has {len(weights)} entries for {len(names)} losses {list(names)}")
    _check_extra(names, fields, extra)
    parts = []
    for name, weight in zip(names, weights or [1.0] * len(names), strict=True):
        filed = DPO_LOSSES[name]
        parts.append((float(weight), _bound(name, filed, fields, extra), _supplied(filed.knobs)))
    return Objective(tuple(parts))


def _supplied(knobs: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in SUPPLIED if name in knobs)


def _check_known(name: str, divergence: str) -> None:
    if name not in DPO_LOSSES:
        raise ValueError(f"loss_type={name!r} is not known; expected one of {', '.join(DPO_LOSSES)}")
    if divergence != "reverse_kl" and DPO_LOSSES[name].reverse_kl_only:
        able = [n for n, filed in DPO_LOSSES.items() if not filed.reverse_kl_only]
        raise ValueError(
            f"f_divergence_type={divergence!r} means nothing for loss_type={name!r}, which is no function of rewards. Write "
            f"f_divergence_type='reverse_kl', or one of the losses {', '.join(able)}."
        )


def _check_extra(names: Sequence[str], fields: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    knobs = {knob for name in names for knob in DPO_LOSSES[name].knobs}
    double = sorted(set(extra) & set(fields))
    if double:
        raise ValueError(f"loss_kwargs {double} are fields of the config; give them there")
    unknown = sorted(set(extra) - knobs)
    if unknown:
        raise ValueError(
            f"loss_kwargs {unknown} belong to none of the losses {list(names)}, which take {sorted(knobs)}"
        )


def _bound(name: str, filed: Filed, fields: Mapping[str, Any], extra: Mapping[str, Any]) -> PairLoss:
    known = {**fields, **extra}
    missing = [k for k in filed.knobs if k not in known and k not in SUPPLIED and k not in filed.optional]
    if missing:
        raise ValueError(
            f"loss_type={name!r} takes {missing}, which the config does not have; write "
            f"loss_kwargs={{{missing[0]!r}: …}}"
        )
    return partial(filed.function, **{k: known[k] for k in filed.knobs if k in known and k not in SUPPLIED})
