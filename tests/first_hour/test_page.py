"""The page names every situation of its table, and only tests that exist."""

from importlib import import_module

from .page import ROWS, TESTS

SITUATIONS = list(range(1, 32))


def test_the_page_has_every_situation():
    assert ROWS == SITUATIONS


def test_every_test_that_the_page_names_exists():
    assert len(TESTS) >= len(SITUATIONS)
    for file, name in TESTS:
        assert hasattr(import_module(f"tests.first_hour.{file.removesuffix('.py')}"), name)
