"""A thousand steps of a trainer, and what the process holds meanwhile: `python tests/faults/soak.py ppo|grpo FOLDER`."""

from __future__ import annotations

import gc
import json
import os
import sys
import threading

import torch
from transformers import TrainerCallback

from tests.resume import cases

STEPS, EVERY = 1000, 100
PAGE = os.sysconf("SC_PAGE_SIZE")
FIELDS = {
    "max_steps": STEPS,
    "logging_steps": 20,
    "save_steps": EVERY,
    "save_total_limit": 2,
    "hang_timeout": 120,
}


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


def main(name, folder):
    if name == "ppo":
        trainer = cases.ppo(folder, num_train_epochs=100, response_length=4, **FIELDS)
    else:
        trainer = cases.grouped("GRPO", folder, max_completion_length=4, num_iterations=2, **FIELDS)
    measure = Measure(trainer)
    trainer.add_callback(measure)
    trainer.train()
    print("measured", json.dumps(measure.rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
