"""Whether a text's final answer is the reference's: exactly, for numbers; by math-verify, for the rest, where it is installed."""

from __future__ import annotations

import logging
import re
import threading
from functools import cache
from importlib.util import find_spec
from typing import Any

from .answers import Number, as_number, last_number, marked_answer, same

logger = logging.getLogger(__name__)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
SECONDS = 5
"""Time that math-verify may take for one answer."""


def is_right(text: str | None, reference: str) -> float | None:
    """1.0 or 0.0: whether the text's final answer is the reference's; None: the reference cannot be read."""
    said = marked_answer(reference)
    number = as_number(reference if said is None else said)
    if text is None:
        return 0.0 if number is not None or _verifier(reference) else None
    if number is not None:
        found, marked = _number_in(text)
        if found is not None or not marked or not find_spec("math_verify"):
            return float(found is not None and same(found, number))
    return _verified(text, reference)


def _number_in(text: str) -> tuple[Number | None, bool]:
    """(the number that a text ends in, whether the text marks its answer)."""
    said = marked_answer(text)
    return (last_number(text), False) if said is None else (as_number(said), True)


def shown(text: str) -> str | None:
    said, number = marked_answer(text), last_number(text)
    return said if said is not None or number is None else str(number.value) + "%" * number.percent


@cache
def _say_what_is_missing() -> None:
    logger.warning(
        "a reference answer is not a plain number, and math-verify is not installed: such rows count as not applicable. "
        "pip install 'trellis-rl[math]' compares expressions too"
    )


def _verifier(reference: str) -> list[Any]:
    """What math-verify reads in a reference: [] for nothing, or without it."""
    if not find_spec("math_verify"):
        _say_what_is_missing()
        return []
    from math_verify import parse

    return parse(_delimited(reference), parsing_timeout=_seconds())


def _verified(text: str, reference: str) -> float | None:
    gold = _verifier(reference)
    if not gold:
        return None
    from math_verify import parse, verify

    said = parse(_delimited(text, whole=False), parsing_timeout=_seconds())
    return float(verify(gold, said, timeout_seconds=_seconds()))


def _delimited(text: str, *, whole: bool = True) -> str:
    """The marked answer as a box, or (`whole`) a text of nothing but an answer between dollars: math-verify looks for these."""
    said = marked_answer(text)
    if said is not None:
        return rf"$\boxed{{{said}}}$"
    prose = "$" in text or _WORD.search(text)
    return text if prose or not whole else f"${text}$"


def _seconds() -> int | None:
    """math-verify limits its time by a signal, which only the main thread can have."""
    return SECONDS if threading.current_thread() is threading.main_thread() else None
