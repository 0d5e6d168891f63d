"""The documentation, built strictly and opened from a disk: it searches, fits a phone, and says nothing on the console."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.chromium import opened

ROOT = Path(__file__).resolve().parents[2]
SEARCH = """(async () => {
  const toggle = document.getElementById('__search'), query = document.querySelector('[data-md-component=search-query]')
  toggle.checked = true
  toggle.dispatchEvent(new Event('change'))
  query.focus()
  query.value = 'packing'
  query.dispatchEvent(new Event('input', {bubbles: true}))
  query.dispatchEvent(new Event('keyup', {bubbles: true}))
  for (let i = 0; i < 600 && !document.querySelector('.md-search-result__link'); i++)
    await new Promise(requestAnimationFrame)
  return document.querySelector('[data-md-component=search-result]').innerText
})()"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    return folder


def test_the_search_works_from_a_disk(site):
    with opened() as page:
        page.look(1280, 900)
        page.open(site / "index.html")
        assert "Supervised fine-tuning" in page.ask(SEARCH)
        assert not page.problems


def test_pages_fit_a_phone_in_the_light_and_in_the_dark(site):
    with opened() as page:
        for name in (
            "index",
            "catalog",
            "mathematics/sft",
            "walkthroughs/sft",
            "annotated/sft",
            "status",
            "debugging",
        ):
            for dark in (False, True):
                page.look(390, 844, dark=dark)
                page.open(site / f"{name}.html")
                assert page.ask("document.documentElement.scrollWidth") <= 390, name
                scheme = page.ask("document.body.dataset.mdColorScheme")
                assert scheme == ("slate" if dark else "default")
        page.open(site / "catalog.html")
        tree = (
            "[...document.querySelectorAll('pre code')].find(x => x.innerText.startsWith('What do you have'))"
        )
        assert page.ask(f"{tree}.scrollWidth <= {tree}.clientWidth")
        assert not page.problems
