"""What a finished, failed or repeated save looks like on the disk."""

import json
import os
import resource
import stat
import subprocess
import sys

import pytest
import torch

from tests import warm
from trellis import checkpoint


def save(root, step, text="x" * 100):
    with checkpoint.staged(root, f"checkpoint-{step}") as folder:
        (folder / "weights.bin").write_text(text)
    return root / f"checkpoint-{step}"


def names(root):
    return sorted(p.name for p in root.iterdir())


def test_nothing_is_visible_until_the_block_ends(tmp_path):
    with checkpoint.staged(tmp_path, "checkpoint-1") as folder:
        assert folder.name == "checkpoint-1"
        assert folder.parent.parent == tmp_path
        assert checkpoint.newest_whole(tmp_path) is None
        (folder / "a").write_text("a")
    assert names(tmp_path) == ["checkpoint-1"]
    assert names(tmp_path / "checkpoint-1") == ["a", "manifest.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_failed_save_leaves_nothing_and_keeps_the_old(tmp_path, error):
    """Fault: an exception inside a save
    Then: nothing of it remains; an earlier checkpoint of that name is still there
    """
    save(tmp_path, 1, "old")

    def fail():
        with checkpoint.staged(tmp_path, "checkpoint-1") as folder:
            (folder / "weights.bin").write_text("new")
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == ["checkpoint-1"]
    assert (tmp_path / "checkpoint-1" / "weights.bin").read_text() == "old"
    assert checkpoint.verify(tmp_path / "checkpoint-1") == []


def test_a_full_disk_leaves_nothing_and_keeps_the_old(tmp_path):
    save(tmp_path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save(tmp_path, 2, "x" * 20_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == ["checkpoint-1"]


def test_saving_twice_replaces(tmp_path):
    save(tmp_path, 1, "old")
    save(tmp_path, 1, "new")
    assert names(tmp_path) == ["checkpoint-1"]
    assert (tmp_path / "checkpoint-1" / "weights.bin").read_text() == "new"
    assert checkpoint.verify(tmp_path / "checkpoint-1") == []


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_get_the_modes_of_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with checkpoint.staged(tmp_path, "checkpoint-1") as folder:
            checkpoint.save_state(folder / "trellis-0", {"a": torch.zeros(2)}, {})
    finally:
        os.umask(before)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) == 3
    assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {mode}


def dead_pid():
    return int(
        subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True).stdout
    )


def test_left_overs_of_dead_runs_go_and_those_of_living_ones_stay(tmp_path):
    dead, alive = dead_pid(), os.getppid()
    for pid in (dead, alive):
        (tmp_path / f".staging-checkpoint-8-{pid}" / "checkpoint-8").mkdir(parents=True)
    (tmp_path / f".deleted-checkpoint-2-{dead}").mkdir()
    save(tmp_path, 9)
    assert names(tmp_path) == [f".staging-checkpoint-8-{alive}", "checkpoint-9"]


def test_a_whole_left_over_is_finished_not_thrown_away(tmp_path):
    aside = tmp_path / f".staging-checkpoint-8-{dead_pid()}"
    written = save(tmp_path, 8, "whole")
    aside.mkdir()
    written.rename(aside / "checkpoint-8")
    save(tmp_path, 9)
    assert names(tmp_path) == ["checkpoint-8", "checkpoint-9"]
    assert checkpoint.verify(tmp_path / "checkpoint-8") == []


def test_rotation_keeps_the_last_written_and_the_protected(tmp_path):
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, step)
    assert checkpoint.rotate(tmp_path, None) == []
    gone = checkpoint.rotate(tmp_path, 2, protect=str(tmp_path / "checkpoint-2"))
    assert [p.name for p in gone] == ["checkpoint-3", "checkpoint-1"]
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-4", "checkpoint-5"]


def test_rotation_never_deletes_the_last_whole_one(tmp_path):
    """Fault: everything that `save_total_limit` would keep is damaged
    Then: the newest whole checkpoint is kept beside it
    """
    for step in (1, 2, 3):
        save(tmp_path, step)
    (tmp_path / "checkpoint-3" / "weights.bin").write_text("y" * 100)
    checkpoint.rotate(tmp_path, 1)
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-3"]
    assert checkpoint.newest_whole(tmp_path) == tmp_path / "checkpoint-2"


def test_rotation_leaves_what_it_did_not_write(tmp_path):
    (tmp_path / "checkpoint-77").mkdir()
    (tmp_path / "checkpoint-77" / "model.safetensors").write_text("of another tool")
    for step in (1, 2):
        save(tmp_path, step)
    checkpoint.rotate(tmp_path, 1)
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-77"]


RANKS = """
import json, os, sys
import torch.distributed as dist
from trellis import checkpoint
rank, root, init = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method="file://" + init, rank=rank, world_size=2)
with checkpoint.staged(root, "checkpoint-1") as folder:
    (folder / f"rank-{rank}").write_text("x")
assert checkpoint.resolve_resume(root, True).name == "checkpoint-1"
try:
    with checkpoint.staged(root, "checkpoint-2") as folder:
        (folder / f"rank-{rank}").write_text("x")
        if rank == 1:
            raise ValueError("no room")
except (ValueError, RuntimeError) as error:
    print(type(error).__name__, error)
try:
    checkpoint.resolve_resume(root + "/none", True)
except ValueError as error:
    print("ValueError" if "holds no whole" in str(error) else error)
dist.destroy_process_group()
"""


def test_two_ranks_write_one_checkpoint_and_fail_together(tmp_path):
    """Fault: one of two processes fails while saving
    Then: the save fails on both; nothing of it remains
    """
    root = tmp_path / "run"
    (tmp_path / "ranks.py").write_text(RANKS)
    ranks = [warm.start(tmp_path / "ranks.py", r, root, tmp_path / "meet") for r in (0, 1)]
    said = [rank.communicate(timeout=120)[0].splitlines() for rank in ranks]
    assert [rank.wait() for rank in ranks] == [0, 0]
    for rank in ranks:
        rank.close()
    assert said[0] == [
        "RuntimeError saving the checkpoint failed on rank 1: ValueError: no room",
        "ValueError",
    ]
    assert said[1] == ["ValueError no room", "ValueError"]
    assert names(root) == ["checkpoint-1"]
    assert names(root / "checkpoint-1") == ["manifest.json", "rank-0", "rank-1"]
    assert json.loads((root / "checkpoint-1" / "manifest.json").read_text())["world_size"] == 2
