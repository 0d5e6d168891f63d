"""SIGKILL at a moment drawn anew on each run of the suite; the script prints the seed that repeats it."""

import pytest

from .cases import KILLED
from .kill9 import main


@pytest.mark.slow
@pytest.mark.parametrize("case", KILLED)
def test_a_killed_run_resumes_to_the_same_weights(case, capsys):
    """Fault: SIGKILL at random moments of a run (a step, the inside of a rollout), twice in a row
    Then: resumed, it ends with the weights of the run that nobody touched, to the bit
    """
    assert main([case, "--kills", "2"]) == 0
    said = capsys.readouterr().out
    assert f"{case}: killed after" in said
    assert "equal weights" in said
