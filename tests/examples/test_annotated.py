"""The annotated scripts run from nothing, say where they started and where they ended, and share one starting point."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest

from examples.annotated import start
from tests import warm

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "annotated"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if path.stem not in ("start", "__init__"))
NUMBER = re.compile(r"\d+\.\d+|\d+ ?%")


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A working directory that keeps what the first script makes for the next."""
    return tmp_path_factory.mktemp("annotated")


def said_both(text: str) -> bool:
    """Whether a "before" and an "after" are there, and at least two numbers from the first of them on."""
    lower = text.lower()
    found = [lower.find(word) for word in ("before", "after")]
    return min(found) >= 0 and len(NUMBER.findall(lower[min(found) :])) >= 2


@pytest.mark.parametrize("script", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_a_script_runs_and_says_what_changed(script, desk):
    with contextlib.chdir(desk):
        done = warm.run(script, "--quick", timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert said_both(done.stdout), done.stdout[-3000:]


def test_a_script_that_says_nothing_would_be_noticed():
    assert said_both("held-out loss before 5.13, after 4.20")
    assert said_both("        before  after\nloss    5.13    4.20")
    assert not said_both("training took 5.13 seconds, then 4.20; before and after are alike")
    assert not said_both("loss after 4.20, 4.10")


def test_the_starting_point_is_made_once(desk):
    with contextlib.chdir(desk):
        folder = Path(start.starting_reward_model(quick=True))
        first = (folder / "model.safetensors").stat().st_mtime_ns
        assert start.starting_reward_model(quick=True) == str(folder)
        assert (folder / "model.safetensors").stat().st_mtime_ns == first
        assert sorted(path.name for path in folder.parent.iterdir()) == ["policy", "reward"]
