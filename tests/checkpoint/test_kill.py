"""A process that dies anywhere in a save leaves the checkpoints that were there, and perhaps the new one; never a half."""

import json
from functools import cache
from pathlib import Path

import pytest

from tests import warm

SCRIPT = Path(__file__).with_name("kill_points.py")


@cache
def kills(scenario):
    done = warm.run(SCRIPT, scenario)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) > 35, "the script must have died at every file of the save"
    assert [k["finished"] for k in found] == [False] * (len(found) - 1) + [True]
    return found


@pytest.mark.parametrize("scenario", ["first", "third", "again"])
def test_no_kill_leaves_a_damaged_checkpoint_or_litter(scenario):
    """Fault: the process dies, without cleaning up, at any touch of the file system in a save: a child per touch, over 100
    Then: no half checkpoint is ever visible under its name; the next run tidies up what lay aside
    """
    for kill in kills(scenario):
        assert kill["damaged"] == [], kill
        assert kill["aside"] == [], kill


def test_first_save_is_there_or_not():
    """Fault: the same, in the first save of a run
    Then: the checkpoint is there and whole, or it is not there
    """
    found = [kill["resumed"] for kill in kills("first")]
    assert {"name": "checkpoint-3", "value": 3} in found[:-1], (
        "some kill comes after the last byte was written"
    )
    assert all(r in (None, {"name": "checkpoint-3", "value": 3}) for r in found)
    assert found[0] is None
    assert found[-1] is not None


def test_earlier_checkpoints_survive_and_the_newest_whole_one_is_found():
    """Fault: the same, with earlier checkpoints and rotation
    Then: the earlier ones are as they were; the newest whole one is found; rotation comes after the new one is whole
    """
    for kill in kills("third"):
        assert kill["visible"].get("checkpoint-2") == 2, kill
        assert kill["resumed"]["value"] in (2, 3), kill
        if "checkpoint-3" in kill["visible"]:
            assert kill["resumed"] == {"name": "checkpoint-3", "value": 3}
        if "checkpoint-1" not in kill["visible"]:
            assert "checkpoint-3" in kill["visible"], "rotation came before the save was finished"


def test_saving_over_the_only_checkpoint_never_loses_it():
    """Fault: the same, when the only checkpoint is replaced by one of the same name
    Then: the old one until the exchange, the new one from then on
    """
    values = [kill["resumed"]["value"] for kill in kills("again")]
    assert set(values) == {1, 9}
    assert values == sorted(values), "old until the moment of the exchange, new from then on"
