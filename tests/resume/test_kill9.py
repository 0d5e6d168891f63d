"""SIGKILL at a moment drawn anew on each run of the suite; the script prints the seed that repeats it."""

import subprocess
import sys
from pathlib import Path

import pytest

from .cases import KILLED


@pytest.mark.slow
@pytest.mark.parametrize("case", KILLED)
def test_a_killed_run_resumes_to_the_same_weights(case):
    """Fault: SIGKILL at random moments of a run (a step, the inside of a rollout), twice in a row
    Then: resumed, it ends with the weights of the run that nobody touched, to the bit
    """
    script = Path(__file__).with_name("kill9.py")
    done = subprocess.run(
        [sys.executable, str(script), case, "--kills", "2"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{case}: killed after" in done.stdout
    assert "equal weights" in done.stdout
