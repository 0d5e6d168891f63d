"""Running a function on several processes (gloo, one thread each), as a cluster would run a training script."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tests import warm

ROOT = Path(__file__).resolve().parent.parent


def run_ranks(function: Callable[..., Any], n: int = 2, **arguments: Any) -> list[Any]:
    """What `function(**arguments)` returned on each of `n` ranks, in rank order.

    `function` is a top-level function of an importable module (its process imports it anew); arguments and results are what
    torch.save can write: tensors, numbers, strings, lists and dicts of them. Raises AssertionError with the ranks' output when
    one of them fails, and ends the others. The ranks start warm (tests/warm.py); `torchrun` starts them as users do.
    """
    return called(together, function, n, arguments)


def torchrun(function: Callable[..., Any], n: int = 2, **arguments: Any) -> list[Any]:
    """The same with torch's launcher and fresh processes, which costs a start of Python for each."""
    return called(launched, function, n, arguments)


def called(way: Callable[..., str], function: Callable[..., Any], n: int, arguments: dict) -> list[Any]:
    """Hand `function` its arguments and its answers back; `way` starts the ranks and says what went wrong, if anything."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        torch.save(arguments, Path(folder, "arguments.pt"))
        failure = way(n, [__file__, f"{function.__module__}:{function.__name__}", folder])
        assert not failure, f"{function.__name__} on {n} ranks:\n{failure}"
        return [torch.load(Path(folder, f"{rank}.pt")) for rank in range(n)]


def together(n: int, words: list[str]) -> str:
    """All ranks side by side, until the last has ended or one has failed."""
    ranks = [warm.start(*words, env=place) for place in places(n)]
    with ThreadPoolExecutor(n) as readers:
        ends = {readers.submit(rank.communicate): rank for rank in ranks}
        failure = ""
        for end in as_completed(ends):
            if ends[end].wait() and not failure:
                failure = "\n".join(end.result())
                for rank in ranks:
                    rank.kill()
    for rank in ranks:
        rank.close()
    return failure


def launched(n: int, words: list[str]) -> str:
    """All ranks as children of torchrun."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(n)]
    done = subprocess.run([*launch, *words], env=environment(), cwd=ROOT, capture_output=True, text=True)
    return f"{done.stdout}\n{done.stderr}" if done.returncode else ""


def places(n: int) -> list[dict[str, str]]:
    """The environment of each of `n` processes on this machine that will find each other."""
    shared = {"WORLD_SIZE": n, "LOCAL_WORLD_SIZE": n, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    return [environment(**shared, RANK=rank, LOCAL_RANK=rank) for rank in range(n)]


def environment(**more: object) -> dict[str, str]:
    """This process's environment with `more`; this checkout, one thread, no network but the machine's own."""
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        **{name: str(value) for name, value in more.items()},
    }


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
