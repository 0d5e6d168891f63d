"""What the site adds while it is built (`hooks` in mkdocs.yml): formulas as MathML, which browsers draw by themselves."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>',
    flags=re.DOTALL,
)
NAMES = "log|exp|max|min"
AFTER = re.compile(rf"(<m[io]>(?:{NAMES})</m[io]>)(?=<m[a-z]+>)")
BEFORE = re.compile(rf"(</m(?:i|n|sub|sup|row|frac)>|&#x00029;</mo>)(?=<m[io]>(?:{NAMES})</m[io]>)")
SPACE = '<mspace width="0.17em"/>'
LEFT_OVER = re.compile(r"\\[A-Za-z]+")


def drawn(formula: str, display: str = "inline") -> str:
    """A formula as MathML, with the space round log and its kin that print has. Raises ValueError for what cannot be drawn."""
    found = convert(formula, display=display)
    lost = LEFT_OVER.findall(found)
    if lost:
        raise ValueError(
            f"cannot draw {', '.join(lost)} of ${formula}$; write it with other commands, or \\mathrm{{…}}"
        )
    return BEFORE.sub(rf"\1{SPACE}", AFTER.sub(rf"\1{SPACE}", found))


def on_page_content(text: str, page: Any, **given: Any) -> str:
    """The page with each `$…$` and `$$…$$` drawn; needs no script and no network."""

    def put(found: re.Match[str]) -> str:
        display = "inline" if found[2] == "(" else "block"
        try:
            return f"<{found[1]}>{drawn(html.unescape(found[3]).strip(), display)}</{found[1]}>"
        except ValueError as error:
            raise PluginError(f"{page.file.src_path}: {error}") from error

    return FORMULA.sub(put, text)
