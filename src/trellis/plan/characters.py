"""Characters that no one meant to write, and how to take them back."""

from __future__ import annotations

import re

LOST = "\ufffd"
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
INVISIBLE = re.compile("[\u200b\u2060\ufeff]")
"""Zero-width space, word joiner and byte order mark; the joiners of scripts and emoji are not among them."""

MOJIBAKE = re.compile(
    "[\u00c2-\u00f4][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]{1,3}"
)
"""What a letter of two to four UTF-8 bytes looks like when its bytes are read as Windows-1252."""


def repaired(text: str) -> str:
    """`text` with what was UTF-8 read as Windows-1252 read again as UTF-8; anything else stays."""
    return text if text.isascii() else MOJIBAKE.sub(_again, text)


def _again(found: re.Match[str]) -> str:
    try:
        return _bytes(found[0]).decode("utf-8")
    except (UnicodeEncodeError, UnicodeDecodeError):
        return found[0]


def _bytes(text: str) -> bytes:
    # Five bytes are undefined in Windows-1252 and come through as control characters.
    return b"".join(
        letter.encode("latin-1") if "\x80" <= letter <= "\x9f" else letter.encode("cp1252") for letter in text
    )


def cleaned(text: str) -> str:
    """`text` without control and invisible characters, with mojibake read again, as often as there is some."""
    while (new := INVISIBLE.sub("", CONTROL.sub("", repaired(text)))) != text:
        text = new
    return text
