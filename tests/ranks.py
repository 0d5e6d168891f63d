"""Running a function on several processes (gloo, one thread each), as a cluster would run a training script."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def run_ranks(function: Callable[..., Any], n: int = 2, **arguments: Any) -> list[Any]:
    """What `function(**arguments)` returned on each of `n` ranks, in rank order.

    `function` is a top-level function of an importable module (its process imports it anew); arguments and results are what
    torch.save can write: tensors, numbers, strings, lists and dicts of them. Raises AssertionError with the ranks' output when
    one of them fails.
    """
    import torch

    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    with tempfile.TemporaryDirectory() as folder:
        torch.save(arguments, Path(folder, "arguments.pt"))
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(n)]
        called = [__file__, f"{function.__module__}:{function.__name__}", folder]
        done = subprocess.run([*launch, *called], env=environment, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{function.__name__} on {n} ranks:\n{done.stdout}\n{done.stderr}"
        return [torch.load(Path(folder, f"{rank}.pt")) for rank in range(n)]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def child(name: str, folder: str) -> None:
    """One rank: call the function, write what it returns."""
    import torch

    torch.set_num_threads(1)
    module, function = name.split(":")
    arguments = torch.load(Path(folder, "arguments.pt"))
    result = getattr(importlib.import_module(module), function)(**arguments)
    torch.save(result, Path(folder, f"{os.environ['RANK']}.pt"))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    child(*sys.argv[1:])
