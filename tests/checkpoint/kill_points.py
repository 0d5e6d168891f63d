"""Die at every touch of the file system during saves, one child process per touch, and look at what is left.

Run as a script with the name of a scenario; prints one JSON list, an entry per kill: the file system event at which the child
died, the checkpoints that are whole, the step that a resumed run would take, and what is left aside after it did.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import torch

from trellis import checkpoint

EVENTS = (
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "os.listdir",
    "os.scandir",
    "shutil.rmtree",
)


def save(root: Path, step: int, value: int) -> None:
    """A checkpoint with a tensor file, a JSON file, a plain file and a sub-directory."""
    with checkpoint.staged(root, f"checkpoint-{step}") as folder:
        (folder / "model.bin").write_bytes(bytes([value]) * 3000)
        checkpoint.save_state(folder / "trellis-0", {"x": torch.full((4,), value)}, {"value": value})
        checkpoint.write_args_json(folder, {"step": step})


def value_of(folder: Path) -> int:
    """What `save` was called with."""
    tensors, plain = checkpoint.load_state(folder / "trellis-0")
    assert bytes([plain["value"]]) * 3000 == (folder / "model.bin").read_bytes()
    assert tensors["x"].tolist() == [plain["value"]] * 4
    return plain["value"]


def first(root: Path) -> None:
    """Nothing was there before."""
    save(root, 3, 3)


def third(root: Path) -> None:
    """Two earlier checkpoints; the older of them goes afterwards."""
    save(root, 3, 3)
    checkpoint.rotate(root, 2)


def again(root: Path) -> None:
    """A checkpoint of that name was there, and it is the only one."""
    save(root, 1, 9)


SCENARIOS = {"first": (first, ()), "third": (third, (1, 2)), "again": (again, (1,))}


def die_at(root: Path, touch: int) -> None:
    """Make this process end, without any cleaning up, at its `touch`-th touch of a path below `root`."""
    left = touch

    def hook(event: str, arguments: tuple) -> None:
        nonlocal left
        if event in EVENTS and arguments and str(arguments[0]).startswith(str(root)):
            left -= 1
            if left < 0:
                os.write(died, f"{event} {Path(str(arguments[0])).name}".encode())
                os._exit(9)

    sys.addaudithook(hook)


def left_over(root: Path) -> dict:
    """The state of `root` as the next run finds it, and after it has chosen what to resume from."""
    visible = {p.name: value_of(p) for p in sorted(root.glob("checkpoint-*")) if not checkpoint.verify(p)}
    damaged = [p.name for p in sorted(root.glob("checkpoint-*")) if p.name not in visible]
    try:
        chosen = checkpoint.resolve_resume(root, True)
        resumed = {"name": chosen.name, "value": value_of(chosen)}
    except ValueError:
        resumed = None
    aside = sorted(p.name for p in root.iterdir() if p.name.startswith("."))
    return {"visible": visible, "damaged": damaged, "resumed": resumed, "aside": aside}


def run(scenario: str) -> list[dict]:
    """Every kill of a scenario, until a child lives to the end."""
    global died
    act, before = SCENARIOS[scenario]
    found: list[dict] = []
    while True:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for step in before:
                save(root, step, step)
            ear, died = os.pipe()
            child = os.fork()
            if child == 0:
                die_at(root, len(found))
                act(root)
                os._exit(0)
            os.close(died)
            event = os.read(ear, 500).decode()
            os.close(ear)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if code not in (0, 9):
                raise SystemExit(f"the child failed by itself with {code}")
            found.append({"event": event, "finished": code == 0, **left_over(root)})
            if code == 0:
                return found


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1])))
