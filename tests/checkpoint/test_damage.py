"""What `verify`, `newest_whole` and `resolve_resume` say about damaged, foreign and missing checkpoints."""

import hashlib
import json
import logging

import pytest
import torch

from trellis import checkpoint


def save(root, step, text="x" * 100):
    with checkpoint.staged(root, f"checkpoint-{step}") as folder:
        (folder / "config.json").write_text(json.dumps({"step": step}))
        (folder / "weights.bin").write_text(text)
        checkpoint.save_state(folder / "trellis-0", {"a": torch.arange(3)}, {"step": step})
    return root / f"checkpoint-{step}"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def remove(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


FILES = ["config.json", "weights.bin", "trellis-0/trellis_state.safetensors", "trellis-0/trellis_state.json"]


@pytest.mark.parametrize("file", [*FILES, "manifest.json"])
@pytest.mark.parametrize("damage", [truncate, flip, remove, empty])
def test_any_damage_to_any_file_is_seen_and_passed_over(tmp_path, caplog, file, damage):
    """Fault: a file of the newest checkpoint is cut short, emptied, changed in one bit, or missing
    Then: the damage is named, the newest whole checkpoint is taken
    """
    good, bad = save(tmp_path, 1), save(tmp_path, 2)
    damage(bad / file)
    problems = checkpoint.verify(bad)
    assert len(problems) == 1
    assert file in problems[0]
    with caplog.at_level(logging.WARNING):
        assert checkpoint.newest_whole(tmp_path) == good
    assert len(caplog.records) == 1
    assert str(bad) in caplog.text
    assert problems[0] in caplog.text


def test_a_whole_checkpoint_has_no_problems_and_says_what_wrote_it(tmp_path):
    path = save(tmp_path, 7)
    assert checkpoint.verify(path) == []
    manifest = checkpoint.read_manifest(path)
    assert manifest["step"] == 7
    assert manifest["world_size"] == 1
    assert sorted(manifest["files"]) == sorted(FILES)
    assert (
        manifest["versions"]["torch"] == torch.__version__.split("+")[0]
        or "+" in manifest["versions"]["torch"]
    )
    (path / "notes.txt").write_text("a file that nobody reads is no damage")
    assert checkpoint.verify(path) == []


def sealed(manifest):
    body = json.dumps({k: v for k, v in manifest.items() if k != "sha256"}, sort_keys=True)
    return {**manifest, "sha256": hashlib.sha256(body.encode()).hexdigest()}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"format": 99}, "format 99"),
        ({"files": {"../config.json": {}}}, "bad entry '../config.json'"),
        ({"files": {"/etc/hostname": {}}}, "bad entry '/etc/hostname'"),
        ({"files": []}, "lists no files"),
    ],
)
def test_manifests_that_cannot_be_trusted(tmp_path, change, problem):
    """Fault: a manifest that is changed, unreadable, of a newer format, or points outside
    Then: the checkpoint is refused with the reason
    """
    path = save(tmp_path, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(sealed({**manifest, **change})))
    assert problem in checkpoint.verify(path)[0]
    assert checkpoint.newest_whole(tmp_path) is None


def test_what_is_no_checkpoint_at_all(tmp_path):
    path = save(tmp_path, 1)
    assert checkpoint.verify(tmp_path / "nothing") == ["not a directory"]
    (path / "manifest.json").write_text("{")
    assert "unreadable" in checkpoint.verify(path)[0]


def test_resume_true_takes_the_newest_whole(tmp_path):
    save(tmp_path, 5)
    newest = save(tmp_path, 10)
    assert checkpoint.resolve_resume(tmp_path, True) == newest
    assert checkpoint.resolve_resume(tmp_path, str(tmp_path / "checkpoint-5")) == tmp_path / "checkpoint-5"
    assert checkpoint.resolve_resume(tmp_path, None) is None
    assert checkpoint.resolve_resume(tmp_path, False) is None


def test_newest_is_the_last_written_not_the_highest_number(tmp_path):
    save(tmp_path, 50)
    fresh_run = save(tmp_path, 5)
    assert checkpoint.resolve_resume(tmp_path, True) == fresh_run


def test_resume_without_any_checkpoint_says_what_to_type(tmp_path):
    with pytest.raises(
        ValueError, match="holds no whole checkpoint-N directory; leave resume_from_checkpoint out"
    ):
        checkpoint.resolve_resume(tmp_path / "new", True)
    (tmp_path / "checkpoint-3").mkdir()
    with pytest.raises(ValueError, match="holds no whole"):
        checkpoint.resolve_resume(tmp_path, True)


def test_resume_from_a_broken_path_names_the_newest_whole_one(tmp_path):
    good, bad = save(tmp_path, 1), save(tmp_path, 2)
    truncate(bad / "weights.bin")
    with pytest.raises(
        ValueError, match=f'99 bytes instead of 100; resume_from_checkpoint="{good}" is whole'
    ):
        checkpoint.resolve_resume(tmp_path, str(bad))
    with pytest.raises(ValueError, match=f'manifest.json is missing; resume_from_checkpoint="{good}"'):
        checkpoint.resolve_resume(tmp_path / "elsewhere", str(tmp_path))
    with pytest.raises(ValueError, match="not a directory; no whole checkpoint was found"):
        checkpoint.resolve_resume(tmp_path / "new", str(tmp_path / "new" / "checkpoint-1"))


def test_another_number_of_processes_is_announced(tmp_path, caplog):
    """Fault: a run is resumed with another number of processes
    Then: it goes on; a warning says that it is not the same to the bit
    """
    with checkpoint.staged(tmp_path, "checkpoint-1", world_size=4) as folder:
        (folder / "a").write_text("a")
    checkpoint.resolve_resume(tmp_path, True)
    assert "written by 4 processes, resuming with 1" in caplog.text
