"""Refuses a page that would fetch something from another machine (a hook in mkdocs.yml): the site needs no network."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from mkdocs.exceptions import PluginError

FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
"""{tag: the attribute whose address a browser fetches by itself}."""
NOT_FETCHED = {"canonical", "alternate", "prev", "next", "edit"}


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


def on_post_page(output: str, page: Any, **given: Any) -> str:
    """The page as it is. Raises PluginError where it fetches from elsewhere."""
    found = fetched(output)
    if found:
        raise PluginError(f"{page.file.src_path} fetches from another machine: {', '.join(found)}")
    return output
