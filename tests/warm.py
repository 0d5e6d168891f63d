"""Python processes that start in milliseconds: children of one process that has imported everything and done nothing.

`run` and `start` take what would stand behind `python` on a command line. The child has its own environment, working directory,
output and exit status, and can be killed like any other. What is settled when Python starts or a package is imported, such as
PYTHONHASHSEED, PYTHONPATH and the number of threads, it has from the process that runs the tests: who tests those starts a fresh
one. Each process of tests has one server, from its first use to its end.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent.parent
IMPORTED = (
    "accelerate",
    "datasets",
    "peft",
    "tests.invariance.cases",
    "tests.resume.cases",
    "torch.distributed",
    "torch._dynamo",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.llama.modeling_llama",
    "trellis.cli",
    *(f"trellis.trainers.{name}" for name in "sft reward dpo kto orpo cpo ppo rloo grpo".split()),
)
LONGEST = 1 << 20
READY = b"+"


class Child:
    """A started process, with the names of `subprocess.Popen`; its outputs are text pipes, the second one where it is no file."""

    def __init__(self, words: tuple[str, ...], env: dict[str, str], stderr: TextIO | None) -> None:
        control = server()
        self.link, theirs = socket.socketpair()
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        self.stdout, self.stderr = open(out), open(err)
        request = json.dumps({"words": words, "env": env, "cwd": os.getcwd()}).encode() + b"\n"
        assert len(request) < LONGEST
        given = [theirs.fileno(), out_end, err_end if stderr is None else stderr.fileno()]
        sent = socket.send_fds(control, [request], given)
        control.sendall(request[sent:])
        theirs.close()
        os.close(out_end)
        os.close(err_end)
        self.answers = self.link.makefile()
        self.pid = int(self.answers.readline())
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, minus the number of the signal that ended it; TimeoutExpired after `timeout` seconds."""
        if self.returncode is None:
            self.link.settimeout(timeout)
            try:
                self.returncode = int(self.link.recv(20))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0) from None
        return self.returncode

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it said on both outputs until its end; it is killed after `timeout` seconds."""
        with ThreadPoolExecutor(2) as readers:
            said = [readers.submit(pipe.read) for pipe in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            return said[0].result(), said[1].result()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        self.wait()
        self.close()

    def close(self) -> None:
        """Let go of its outputs."""
        for end in (self.stdout, self.stderr, self.answers, self.link):
            end.close()


def start(*words: object, env: dict[str, str] | None = None, stderr: TextIO | None = None) -> Child:
    """`python WORDS…`, where WORDS begin with the path of a script or with `-m MODULE`; `env` is the whole environment."""
    return Child(tuple(map(str, words)), dict(os.environ if env is None else env), stderr)


def run(
    *words: object, env: dict[str, str] | None = None, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """The same until its end, with its exit status and what it said."""
    with start(*words, env=env) as child:
        out, err = child.communicate(timeout)
    return subprocess.CompletedProcess([*map(str, words)], child.wait(), out, err)


@cache
def server() -> socket.socket:
    """The way to the warm process, which ends when this one does."""
    ours, theirs = socket.socketpair()
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    more = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "tests.warm"]
    process = subprocess.Popen(command, stdin=theirs.fileno(), env={**os.environ, **more}, cwd=ROOT)
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    if ours.recv(1) != READY:
        end()
        raise ImportError("the warm process did not come up; what it said is on stderr")
    atexit.register(end)
    return ours


def serve() -> list[str]:
    """Answer requests until there are no more; returns in each child, with its words."""
    import torch

    torch.set_num_threads(1)
    for module in IMPORTED:
        import_module(module)
    gc.freeze()  # else each child's end walks, and thereby copies, all of it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    control = socket.socket(fileno=os.dup(0))
    control.sendall(READY)
    while True:
        request, given, _, _ = socket.recv_fds(control, LONGEST, 3)
        while request and not request.endswith(b"\n"):
            request += control.recv(LONGEST)
        if not request:
            os._exit(0)
        if os.fork() == 0:
            control.close()
            return child(json.loads(request), *given)
        for number in given:
            os.close(number)


def child(request: dict, link: int, out: int, err: int) -> list[str]:
    """Stay behind as the one who says how the child ended; returns in the child."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if pid := os.fork():
        os.close(out)
        os.close(err)
        os.write(link, b"%d\n" % pid)
        os.write(link, b"%d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os._exit(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    for number in (link, out, err):
        os.close(number)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    return request["words"]


def become(words: list[str]) -> None:
    """What `python WORDS…` does."""
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    become(serve())
