r"""The final answer of a text, as an exact number: what it recognises is listed here, and nothing is guessed beyond.

An answer stands in the last `\boxed{…}`, or after the last `####`; without either it is the last number. A number is an integer
or a decimal (`1,000` and `1{,}000` are 1000), a fraction (`1/2`, `\frac{1}{2}`, `1\frac{1}{2}`), a power of ten (`2e3`,
`2 \times 10^3`) or a percentage, with a sign, a currency before it or a unit after it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

LONGEST = 200
"""Characters of an answer that is read as a number; and digits of an exponent are two: nothing a model writes takes long."""

_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_POWER = (
    r"(?:[eE][-+]?\d{1,2}(?!\d)|\s*(?:\\times|\\cdot|[×x*])\s*10\s*\^\s*(?:\{[-+]?\d{1,2}\}|[-+]?\d{1,2}))?"
)
_FRACTION = r"\\frac\s*(?:\{\s*-?[\d.]+\s*\}|\d)\s*(?:\{\s*-?[\d.]+\s*\}|\d)"
_BODY = rf"(?:(?:\d+\s*)?{_FRACTION}|\d+\s+\d+\s*/\s*\d+|(?:{_DECIMAL})\s*/\s*(?:{_DECIMAL})|(?:{_DECIMAL}){_POWER})"
_PERCENT = r"(?:\s*(?:%|percent\b|per cent\b))?"
_NO_UNIT = "and|or|to|times|pi|sqrt|plus|minus|over|hundred|thousand|million|billion|trillion|dozen|half|halves|third|thirds"
_WORD = rf"(?!(?:{_NO_UNIT})\b)(?:[A-Za-z]{{2,}}|[mgsLhKNJWVA]\b)(?:\s*\^\s*\{{?-?[1-3]\}}?|[²³])?\.?"
_UNIT = rf"(?:\s*(?<![a-z\d])\s*{_WORD}(?:(?:\s+|\s*/\s*){_WORD}){{0,4}}|\s*(?:(?<=\d)(?:cm|mm|km|kg|ml|m|g|s|h)\b))?"
_WHOLE = re.compile(rf"(?P<sign>[-+])?\s*(?P<body>{_BODY})(?P<percent>{_PERCENT}){_UNIT}\s*", re.ASCII)
_ANYWHERE = re.compile(
    rf"(?:(?<![\w)\]}}.%])(?P<sign>[-+]))?(?<![A-Za-z0-9_.,/])(?P<body>{_BODY})(?P<percent>{_PERCENT})",
    re.ASCII,
)
_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_BOX = re.compile(r"\\f?boxed?\s*\{")
_SAME = str.maketrans(
    {"−": "-", "–": "-", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "⁄": "/", "％": "%", "×": "\\times "}
)


@dataclass(frozen=True)
class Number:
    """An exact value; of a percentage, the number before the sign."""

    value: Fraction
    percent: bool = False


def same(a: Number, b: Number) -> bool:
    """a = b. p% is p where the other side is a plain number, and also p/100."""
    if a.percent == b.percent:
        return a.value == b.value
    share, plain = (a, b) if a.percent else (b, a)
    return plain.value in (share.value, share.value / 100)


def marked_answer(text: str) -> str | None:
    """What the last box or `####` line of a text says; None without either (a box that was never closed is none)."""
    at, found = -1, None
    for hashes in _HASHES.finditer(text):
        at, found = hashes.start(), hashes[1].strip()
    closed = _closing(text)
    for box in reversed(list(_BOX.finditer(text))):
        if box.end() - 1 in closed:
            return text[box.end() : closed[box.end() - 1]].strip() if box.start() > at else found
    return found


def as_number(answer: str) -> Number | None:
    """The number that an answer is, as a whole; None for anything else, also for an expression to be computed."""
    if len(answer) > LONGEST:
        return None
    answer = _plain(answer).strip().strip("*`_").strip()
    answer = answer.rpartition("=")[2].strip().removesuffix(".").strip()
    match = _WHOLE.fullmatch(answer)
    return _number(match) if match else None


def last_number(text: str) -> Number | None:
    """The last number in a text."""
    matches = reversed(list(_ANYWHERE.finditer(_plain(text))))
    return next((number for match in matches if (number := _number(match))), None)


def _closing(text: str) -> dict[int, int]:
    """Where each brace that is closed is closed."""
    open_at, closed = [], {}
    for brace in re.finditer(r"[{}]", text):
        if brace[0] == "{":
            open_at.append(brace.start())
        elif open_at:
            closed[open_at.pop()] = brace.start()
    return closed


def _plain(text: str) -> str:
    """The text without what only sets it: math delimiters, spacing, fonts, degrees, currencies."""
    text = text.translate(_SAME)
    text = re.sub(r"\\(?:left|right|displaystyle|[,!;:]|[()\[\]])", "", text.replace("{,}", ","))
    text = re.sub(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}", r" \1 ", text)
    text = re.sub(r"\\[dtc]frac", r"\\frac", text).replace("\\%", "%").replace("\\ ", " ").replace("~", " ")
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?|\\degree|°", "", text)
    return re.sub(r"([-+]?) ?\\?[$€£¥₹] ?", r" \1", text)


def _number(match: re.Match[str]) -> Number | None:
    try:
        value = _value(match["body"])
    except (ZeroDivisionError, ValueError):  # 1/0, or more digits than Python reads
        return None
    return Number(-value if match["sign"] == "-" else value, bool(match["percent"]))


def _value(body: str) -> Fraction:
    fraction = re.fullmatch(r"(\d*)\s*\\frac\s*(?:\{(.*?)\}|(\d))\s*(?:\{(.*?)\}|(\d))", body)
    if fraction:
        whole, top, bottom = fraction[1], fraction[2] or fraction[3], fraction[4] or fraction[5]
        return Fraction(whole or 0) + Fraction(top.strip()) / Fraction(bottom.strip())
    mixed = re.fullmatch(r"(\d+)\s+(\d+)\s*/\s*(\d+)", body)
    if mixed:
        return Fraction(mixed[1]) + Fraction(int(mixed[2]), int(mixed[3]))
    top, _, bottom = body.replace(",", "").partition("/")
    return _decimal(top) / _decimal(bottom or "1")


def _decimal(text: str) -> Fraction:
    """`2.5`, `2e3`, `2 \\times 10^{3}`."""
    digits, power = re.fullmatch(
        r"\s*([\d.]+)(?:[eE]|\s*(?:\\times|\\cdot|[x*])\s*10\s*\^\s*)?\{?([-+]?\d*)\}?\s*", text
    ).groups()  # type: ignore[union-attr]
    return Fraction(digits) * Fraction(10) ** int(power or 0)
