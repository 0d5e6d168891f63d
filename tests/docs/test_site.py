"""The site fetches nothing from elsewhere, its links lead somewhere, and every page can be reached."""

import re
from pathlib import Path

import pytest
import yaml
from markdown.extensions.toc import slugify

from scripts.site import fetched

from .pages import ROOT

DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]+`", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(<?([^)\s>]+)>?\)")


def anchors(text):
    """The names of a page's headings, those of a repeated one numbered."""
    seen, found = {}, set()
    for title in re.findall(
        r"^#+ (.*)$", re.sub(r"^ *```.*?^ *```", "", text, flags=re.S | re.M), flags=re.M
    ):
        name = slugify(re.sub(r"[`*]|\]\([^)]*\)", "", title), "-")
        found.add(name if name not in seen else f"{name}_{seen[name]}")
        seen[name] = seen.get(name, 0) + 1
    return found


def lost(page, text):
    """The links of a page that lead to nothing."""
    found = []
    for target in LINK.findall(CODE.sub("", text)):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file.read_text())):
            found.append(target)
    return found


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page):
    assert not lost(page, page.read_text(encoding="utf-8"))


def test_a_lost_link_and_a_lost_anchor_would_be_noticed():
    text = "[a](docs/index.md) [b](docs/gone.md) [c](docs/sft.md#gone) [d](docs/sft.md#adapters) `[e](gone.md)` [f](https://a.b)"
    assert lost(ROOT / "README.md", text) == ["docs/gone.md", "docs/sft.md#gone"]


def entries(nav):
    """The files of a tree of entries."""
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from entries(value) if isinstance(value, list) else [value]


def test_every_page_is_in_the_navigation_once():
    named = list(entries(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert len(named) == len(set(named))
    assert sorted(named) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_what_a_browser_would_fetch_from_elsewhere_is_found():
    page = '<script src="https://a.b/x.js"></script><link rel="stylesheet" href="//a.b"><img src="http://a.b/p.png">'
    assert len(fetched(page)) == 3
    assert not fetched(
        '<a href="https://a.b">x</a><script src="x.js"></script><link rel="canonical" href="https://a.b">'
    )


def test_the_style_fetches_nothing():
    for path in Path(DOCS / "assets").glob("*.css"):
        assert not re.search(r"@import|url\(", path.read_text())
