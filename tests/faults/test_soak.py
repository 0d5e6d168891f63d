"""A long run in short: thousands of tiny steps with sampling, judging, saving and evaluating, in which nothing may pile up."""

import json

import numpy as np
import pytest

from tests import warm

from .soak import __file__ as SOAK

WARM = 200


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_nothing_piles_up(name, tmp_path):
    """Fault: a thousand steps each of PPO and GRPO with sampling, saving, evaluating, logging and a watchdog
    Then: memory, open files, threads and tensors do not grow: the slope over steps is measured and bounded
    """
    # In a process of its own: what ran before leaves holes in a heap, and they are filled.
    done = warm.run(SOAK, name, tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.rpartition("measured ")[2])
    steps, resident, files, threads, tensors = np.array(rows).T
    late = steps > WARM
    slope = np.polyfit(steps[late], resident[late], 1)[0]
    print(
        f"{slope:.0f} bytes per step; files {set(files[late])}, threads {set(threads[late])}, tensors {set(tensors[late])}"
    )
    assert slope < 4096
    assert len(set(files[late])) == len(set(threads[late])) == 1
    assert tensors[late].max() <= tensors[~late].max() + 20, "their number depends on the place in a rollout"
    assert len(list(tmp_path.glob("checkpoint-*"))) == 2
