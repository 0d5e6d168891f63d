"""Every Python block of README.md and docs/*.md runs, top to bottom; the blocks of a page share their names."""

import pytest

from .pages import PAGES, ROOT, blocks

WITH_CODE = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.filterwarnings("default::FutureWarning")  # pages show old names and what is said about them
@pytest.mark.parametrize("page", WITH_CODE, ids=[str(page.relative_to(ROOT)) for page in WITH_CODE])
def test_a_pages_code_runs(page, desk):
    names = {"__name__": page.stem}
    for block in blocks(page, "python"):
        exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)


def test_there_is_code_on_the_pages_that_teach():
    assert {
        "README",
        "sft",
        "reward",
        "ppo",
        "data_formats",
        "reward_functions",
        "checkpoints",
        "grpo",
        "rloo",
    } <= {page.stem for page in WITH_CODE}
