"""docs/reliability.md says what the suite proves."""

from .page import PAGE, TITLES, faults, written


def test_the_table_is_that_of_the_tests():
    assert PAGE.read_text(encoding="utf-8") == written(), "run python -m tests.faults.page"


def test_every_kind_of_fault_is_in_it():
    found = [title for title, *_ in faults()]
    assert set(TITLES.values()) <= set(found)
    assert len(found) >= 30
