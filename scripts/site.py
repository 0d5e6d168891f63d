"""The site needs no network (a hook in mkdocs.yml): a page that would fetch from another machine is refused, and the search index
is also written as a script, which is all that a browser reads of a site that lies on a disk."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
"""{tag: the attribute whose address a browser fetches by itself}."""
NOT_FETCHED = {"canonical", "alternate", "prev", "next", "edit"}

CELL = re.compile(r"<td[ >].*?</td>", flags=re.DOTALL)
LONG_NAME = re.compile(r"(?<=<code>)[^<\s]{25,}(?=</code>)")


class Fetches(HTMLParser):
    """Collects the addresses elsewhere that a page fetches."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        address = given.get(FETCHED.get(tag, "")) or ""
        if address.startswith(("http:", "https:", "//")) and given.get("rel") not in NOT_FETCHED:
            self.found.append(f"<{tag}> {address}")


def fetched(html: str) -> list[str]:
    """What of a page comes from another machine."""
    parser = Fetches()
    parser.feed(html)
    return parser.found


def breakable(cell: re.Match[str]) -> str:
    """A cell of a table in which a long name may be broken after one of its parts."""
    return LONG_NAME.sub(lambda name: re.sub(r"(::|/|_)(?=\w)", r"\1<wbr>", name[0]), cell[0])


def on_page_content(text: str, **given: Any) -> str:
    """The page, whose tables need not be as wide as the names in them."""
    return CELL.sub(breakable, text)


def on_post_page(output: str, page: Any, **given: Any) -> str:
    """The page as it is. Raises PluginError where it fetches from elsewhere."""
    found = fetched(output)
    if found:
        raise PluginError(f"{page.file.src_path} fetches from another machine: {', '.join(found)}")
    return output


def on_post_build(config: Any, **given: Any) -> None:
    """Write the search index as a script beside itself."""
    index = Path(config["site_dir"]) / "search" / "search_index.json"
    text = index.read_text(encoding="utf-8")
    index.with_suffix(".js").write_text(f"var __index = {text}", encoding="utf-8")
