"""Each situation happens in an empty directory."""

import contextlib

import pytest


@pytest.fixture(autouse=True)
def here(tmp_path):
    with contextlib.chdir(tmp_path):
        yield tmp_path
