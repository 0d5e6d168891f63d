"""The guides show the source as it is, and name tests that exist."""

import pytest

from scripts.guides import DOCS, filled, missing_tests, pages

PAGES = pages()


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(DOCS)) for page in PAGES])
def test_a_page_is_in_step_with_the_code(page):
    text = page.read_text(encoding="utf-8")
    assert filled(text) == text, "write python -m scripts.guides"
    assert not missing_tests(text)


def test_a_stale_block_and_a_lost_test_would_be_noticed():
    stale = "<!-- source: scripts.guides:pages -->\n```py\nold\n```\n"
    assert "def pages" in filled(stale)
    assert "CPO_LOSSES[" in filled(
        "<!-- source: trellis.losses.reference_free:cpo_loss -->\n"
    )  # not an overload
    assert missing_tests("`tests/docs/test_guides.py::test_gone`") == ["tests/docs/test_guides.py::test_gone"]
    with pytest.raises(ValueError, match="defines no"):
        filled("<!-- source: scripts.guides:absent -->\n")
