"""A long run in short: thousands of tiny steps with sampling, judging, saving and evaluating, in which nothing may pile up."""

import gc
import os
import threading
from functools import partial

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from tests.resume import cases

STEPS, EVERY, WARM = 1000, 100, 200
PAGE = os.sysconf("SC_PAGE_SIZE")


class Measure(TrainerCallback):
    """Evaluates after every `EVERY` steps, and notes what the process holds."""

    def __init__(self, trainer):
        self.trainer, self.rows = trainer, []

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % EVERY == 0:
            self.trainer.evaluate()
            gc.collect()
            with open("/proc/self/statm") as file:
                resident = int(file.read().split()[1]) * PAGE
            tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
            files = len(os.listdir("/proc/self/fd"))
            self.rows.append((state.global_step, resident, files, threading.active_count(), tensors))


PPO = {"num_train_epochs": 100, "response_length": 4}
GRPO = {"max_completion_length": 4, "num_iterations": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "changes"), [(cases.ppo, PPO), (partial(cases.grouped, "GRPO"), GRPO)], ids=["ppo", "grpo"]
)
def test_nothing_piles_up(build, changes, tmp_path):
    """Fault: a thousand steps each of PPO and GRPO with sampling, saving, evaluating, logging and a watchdog
    Then: memory, open files, threads and tensors do not grow: the slope over steps is measured and bounded
    """
    trainer = build(
        str(tmp_path),
        max_steps=STEPS,
        logging_steps=20,
        save_steps=EVERY,
        save_total_limit=2,
        hang_timeout=120,
        **changes,
    )
    measure = Measure(trainer)
    trainer.add_callback(measure)
    trainer.train()
    steps, resident, files, threads, tensors = np.array(measure.rows).T
    late = steps > WARM
    slope = np.polyfit(steps[late], resident[late], 1)[0]
    print(
        f"{slope:.0f} bytes per step; files {set(files[late])}, threads {set(threads[late])}, tensors {set(tensors[late])}"
    )
    assert slope < 4096
    assert len(set(files[late])) == len(set(threads[late])) == 1
    assert tensors[late].max() <= tensors[~late].max() + 20, "their number depends on the place in a rollout"
    assert len(list(tmp_path.glob("checkpoint-*"))) == 2
