"""A process that starts warm is one like any other; only its imports were done before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests import warm

SCRIPT = """
import os, sys, threading
print(__name__, sys.argv[1:], os.getcwd(), os.environ.get("ASKED"), "HOME" in os.environ, sys.stdin.read())
print("aside", file=sys.stderr)
sys.stdout.flush()
if sys.argv[1] == "raises":
    raise ValueError("planted")
if sys.argv[1] == "waits":
    threading.Event().wait()
sys.exit(3)
"""


@pytest.fixture
def script(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path / "script.py"


def test_it_does_what_a_fresh_one_does(script):
    env = {"ASKED": "1", "PATH": os.environ["PATH"]}
    for word in ("exits", "raises"):
        command = [sys.executable, str(script), word, "two words"]
        want = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        found = warm.run(script, word, "two words", env=env)
        assert (found.returncode, found.stdout) == (want.returncode, want.stdout)
        assert want.stderr.splitlines()[-1] == found.stderr.splitlines()[-1]


def test_it_is_killed_and_waited_for(script):
    with warm.start(script, "waits") as child:
        assert "waits" in child.stdout.readline()
        assert child.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.01)
        child.kill()
    assert child.returncode == child.poll() == -signal.SIGKILL


def test_it_starts_with_everything_imported_and_one_thread(tmp_path):
    (tmp_path / "look.py").write_text(
        "import os, sys, torch\n"
        "print(torch.get_num_threads(), len(os.listdir('/proc/self/task')), 'trellis.trainers.ppo' in sys.modules)"
    )
    assert warm.run(tmp_path / "look.py").stdout == "1 1 True\n"


def test_a_module_with_its_words():
    done = warm.run("-m", "trellis.cli", "nothing")
    assert done.returncode == 2
    assert "nothing" in done.stderr
