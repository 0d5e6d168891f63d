"""What a policy does on held-out prompts: evaluation, and sample tables while it trains."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..data import prepare_prompts
from ..monitor import send, show
from ..rewards import RewardResult
from ..rollout import Episodes
from .collector import extra_columns
from .seeds import derived_seed

logger = logging.getLogger(__name__)
TABLE_ROWS = 8
Row = dict[str, Any]


class HeldOut:
    """Samples for each prompt of an eval set, with the same draws at every step, so that figures can be compared.

    `tables` of query, response and score are shown over the run (one per rollout at most); `user_metrics(prompts=, completions=,
    scores=, **columns)` → dict adds to the evaluation.
    """

    def __init__(self, trainer: Any, tables: int, user_metrics: Any = None) -> None:
        self.trainer, self.tables, self.user_metrics = trainer, tables, user_metrics

    def due(self, index: int) -> bool:
        """Whether a table belongs to rollout `index`: evenly spread, the first at the first."""
        rollouts = self.trainer.schedule.rollouts
        return index * self.tables // rollouts > (index - 1) * self.tables // rollouts

    def complete(self, rows: Sequence[Row]) -> tuple[Episodes, RewardResult]:
        """One completion per row, and their verdict."""
        trainer = self.trainer
        seeds = [derived_seed(trainer.args.seed, "held out", i) for i in range(len(rows))]
        episodes = trainer.collector.sample(rows, seeds)
        return episodes, trainer.collector.judge(rows, episodes)

    def prompts(self, data: Any) -> Sequence[Row]:
        """Prepared prompts of an eval set as given; without one, the first training prompts."""
        trainer = self.trainer
        if data is None:
            found = trainer.prompts.first(trainer.schedule.prompts)
            logger.info("there is no eval_dataset: the first %d training prompts are evaluated", len(found))
            return found
        if "prompt_ids" not in data[0]:
            data, _ = prepare_prompts(data, trainer.processing_class, name="eval_dataset")
        return [data[i] for i in range(len(data))]

    def evaluate(self, data: Any) -> dict[str, float]:
        """What the trainer measures on `eval_samples` completions of each prompt, each reward's mean, the user's metrics."""
        trainer = self.trainer
        rows = [row for row in self.prompts(data) for _ in range(trainer.eval_samples)]
        episodes, verdict = self.complete(rows)
        rollout = trainer.collector.measure(rows, episodes, verdict)
        trainer.reward_of(rollout, verdict)
        found = trainer.held_out_metrics(rollout, verdict)
        means = verdict.per_function.nanmean(0)
        found |= {
            f"rewards/{name}/mean": float(m)
            for name, m in zip(trainer.collector.means.rewards.names, means, strict=True)
            if not m.isnan()  # it applied to none
        }
        if self.user_metrics is not None:
            columns = extra_columns(rows)
            said = trainer.collector.texts(episodes.completions)
            found |= self.user_metrics(
                prompts=[row["prompt"] for row in rows],
                completions=said,
                scores=rollout.scores.tolist(),
                **columns,
            )
        return found

    @torch.no_grad()
    def offer(self, index: int, rows: Sequence[Row], episodes: Episodes, verdict: RewardResult) -> None:
        """Show a table if rollout `index` is due: of held-out prompts where there are some, else of the rollout's own."""
        trainer = self.trainer
        if not self.due(index):
            return
        data = trainer.eval_dataset
        if isinstance(data, Mapping):
            data = next(iter(data.values()))
        if data is not None:
            rows = [data[i] for i in range(min(TABLE_ROWS, len(data)))]
            episodes, verdict = self.complete(rows)
        if not trainer.is_world_process_zero():
            return
        said = trainer.collector.texts(episodes.completions[:TABLE_ROWS])
        table = [
            {"query": row["prompt"], "response": text, "score": float(score)}
            for row, text, score in zip(rows, said, verdict.total, strict=False)
        ]
        step = trainer.state.global_step
        show(table, title=f"rollout {index}, step {step}")
        send(table, name="samples", step=step, callbacks=trainer.callback_handler.callbacks)
