"""The site fetches nothing from elsewhere, its links lead somewhere, and every page can be reached."""

import re
from pathlib import Path

import pytest
import yaml
from markdown.extensions.toc import slugify

from scripts.formulas import drawn
from scripts.site import fetched, on_page_content

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
    for path in Path(DOCS / "assets").glob("*.*s*"):
        assert not re.search(r"@import|url\(", path.read_text())


def test_a_formula_is_drawn_whole_or_refused():
    assert '<mi>log</mi><mspace width="0.17em"/><mi>p</mi>' in drawn(r"p \log p")
    assert "mspace" not in drawn(r"\log(p)")
    with pytest.raises(ValueError, match=r"cannot draw \\arg of"):
        drawn(r"\arg\max x")


def test_a_long_name_in_a_table_may_be_broken():
    name = "tests/data/test_pack.py::test_pieces_partition"
    html = f"<p><code>{name}</code></p><table><tr><td><code>{name}</code> <code>max_length</code></td></tr></table>"
    broken = on_page_content(html)
    assert broken.startswith(f"<p><code>{name}</code>")
    assert (
        "<code>tests/<wbr>data/<wbr>test_<wbr>pack.py::<wbr>test_<wbr>pieces_<wbr>partition</code>" in broken
    )
    assert "<code>max_length</code>" in broken
