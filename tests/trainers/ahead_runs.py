"""Small runs that sample one rollout ahead, by an engine that keeps a copy of the weights in this process."""

from __future__ import annotations

import copy

import torch

from tests.trainers import group_runs, ppo_runs
from trellis.rollout import sample


class Copies:
    """Samples with a copy of the weights it was given; `asked`: the optimizer step of those, per call; `fails`: the call at which
    it breaks."""

    exact = True
    apart = True

    def __init__(self, fails=None):
        self.model, self.step, self.asked, self.fails = None, None, [], fails

    def sync(self, model, step):
        self.model, self.step = copy.deepcopy(model), step

    def __call__(self, prompts, params, *, n=1, seeds):
        self.asked.append(self.step)
        if len(self.asked) == self.fails:
            raise ConnectionError("the sampling process was ended")
        return sample(self.model, prompts, params, n=n, seeds=seeds)

    def close(self):
        self.model = None


def ahead(method, folder, *, engine=None, parts=None, **args):
    """A trainer whose rollouts, of two optimizer steps each, are sampled one ahead by `engine` (default: Copies)."""
    args = {"rollout_staleness": 1, "report_to": "none", **args}
    if method == "PPO":
        trainer = ppo_runs.trainer_of(folder, parts=parts, **{"total_episodes": 16, **args})
    else:
        trainer = group_runs.build(
            method, folder, parts=parts, **{"num_iterations": 2, "max_steps": 8, **args}
        )
    trainer.collector.engine = engine or Copies()
    return trainer


def weights(trainer):
    """All trained weights in a row."""
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def history(trainer):
    """The log without what a clock measured."""
    clocks = ("eps", "step_time", "_runtime", "_per_second")
    return [{k: v for k, v in e.items() if not k.endswith(clocks)} for e in trainer.state.log_history]
