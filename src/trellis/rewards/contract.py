"""What a reward may return: one entry per completion, each None, a finite number, or one finite number per token."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from .request import RewardError, RewardRequest

Verdict = float | list[float] | None
"""None: not applicable; a number: the completion's score; a list: one per completion token, their sum is the score."""

LARGEST = 3.4028234663852886e38  # of float32, in which rewards travel


def verdicts(name: str, returned: Any, request: RewardRequest) -> list[Verdict | RewardError]:
    """`returned` as one verdict per completion, and the error of a completion that got what is no reward.

    Raises RewardError, with what was found and what was expected, when `returned` as a whole is no answer.
    """
    returned = _plain(returned)
    if not isinstance(returned, list | tuple):
        raise RewardError(
            f"reward {name!r} returned {_seen(returned)}; expected a list of {len(request)} numbers, one per completion"
        )
    if len(returned) != len(request):
        raise RewardError(
            f"reward {name!r} returned {len(returned)} values for {len(request)} completions; expected one per completion, "
            "None where the reward does not apply"
        )
    found: list[Verdict | RewardError] = []
    for row, value in enumerate(returned):
        try:
            found.append(_verdict(name, _plain(value), request, row))
        except RewardError as error:
            found.append(error)
    return found


def _plain(value: Any) -> Any:
    """Tensors and arrays, of any kind and size, as Python numbers and lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def _verdict(name: str, value: Any, request: RewardRequest, row: int) -> Verdict:
    if value is None:
        return None
    if isinstance(value, RewardError):  # of a reward that cannot read this one completion
        raise value
    if not isinstance(value, list | tuple):
        return _number(name, value, request, row)
    tokens = len(request.completion_ids[row])
    if len(value) != tokens:
        raise RewardError(
            f"reward {name!r} returned {len(value)} values for the {tokens} tokens of {_where(request, row)}; expected one "
            "number, or one per token of completion_ids"
        )
    numbers = [_number(name, _plain(one), request, row) for one in value]
    _number(name, math.fsum(numbers), request, row)
    return numbers


def _number(name: str, value: Any, request: RewardRequest, row: int) -> float:
    if not isinstance(value, Real):
        raise RewardError(
            f"reward {name!r} returned {_seen(value)} for {_where(request, row)}; expected a number, or None where the reward "
            "does not apply"
        )
    # The comparison also catches NaN, and integers too large to become a float at all.
    if not -LARGEST <= value <= LARGEST:  # type: ignore[operator]
        raise RewardError(
            f"reward {name!r} returned {_seen(value)} for {_where(request, row)}; expected a finite number. Return None "
            "where the reward does not apply"
        )
    return float(value)


def _where(request: RewardRequest, row: int) -> str:
    return f"completion {row}, {request.excerpt(row)}"


def _seen(value: Any) -> str:
    if isinstance(value, float):
        return str(value)
    text = repr(value)
    return f"{text if len(text) <= 40 else text[:39] + '…'} ({type(value).__name__})"
