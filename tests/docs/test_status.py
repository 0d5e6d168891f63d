"""docs/status.md says what the tests hold, no more and no less."""

import contextlib

from scripts.features import ELSEWHERE, FEATURES, Feature
from scripts.status import PAGE, ROOT, collected, files, holders, written
from tests import warm


def test_the_page_is_in_step_with_the_tests():
    quiet = (
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
    )  # a warm process has imported
    with contextlib.chdir(ROOT):
        done = warm.run("-m", "pytest", "--collect-only", "-q", *quiet, *files(), timeout=300)
    tests = collected(done.stdout)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert written(tests) == PAGE.read_text(encoding="utf-8"), "write python -m scripts.status"


def test_a_test_counts_for_the_trainers_that_its_id_names_and_a_lost_one_is_not_tested():
    tests = [
        "tests/a/test_x.py::test_one[sft-lora]",
        "tests/a/test_x.py::test_one[GRPO]",
        "tests/a/test_x.py::test_all",
    ]
    some = Feature("some", ("tests/a/*::test_one",))
    assert holders(some, tests) == {"sft": tests[:1], "grpo": tests[1:2]}
    assert holders(Feature("all", (("tests/a/*::test_all", ("ppo",)),)), tests) == {"ppo": tests[2:]}
    page = written(tests)
    assert all(f"| {feature.name} | not tested |" in page for feature in FEATURES)
    assert all(f"| {name} | not tested |" in page for name, _ in ELSEWHERE)
