"""Our side of a comparison; see `worker.main`. With BENCH_PROFILE set it says where the time goes, too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import trellis
from trellis.rollout import Completion, InProcess, SamplingParams, sample

from .worker import Answers, Built, Clock, Job, even, main

NAMES = {"reward": "Reward"}


def named(job: Job, kind: str) -> Any:
    """The method's Config or Trainer."""
    return getattr(trellis, NAMES.get(job.case.method, job.case.method.upper()) + kind)


def common(job: Job, clock: Clock) -> dict[str, Any]:
    """Arguments of every trainer."""
    return {
        "args": job.config(named(job, "Config"), profile="BENCH_PROFILE" in os.environ),
        "processing_class": AutoTokenizer.from_pretrained(job.folder / "policy"),
        "train_dataset": job.data(),
        "callbacks": [clock],
        **({"peft_config": job.adapter()} if job.case.lora else {}),
    }


def ppo(job: Job, clock: Clock) -> Built:
    load = AutoModelForSequenceClassification
    trainer = trellis.PPOTrainer(
        model=job.load(AutoModelForCausalLM, "policy"),
        reward_model=job.load(load, "reward"),
        value_model=None if job.case.trunk else job.load(load, "value"),
        **common(job, clock),
    )

    def counts() -> dict[str, float]:
        rollout = trainer.rollout
        assert rollout is not None  # it has trained
        tokens, trained = float(rollout.attention_mask.sum()), float(rollout.loss_mask.sum())
        return {"tokens": tokens, "trained": trained, "texts": float(len(rollout.loss_mask))}

    return Built(trainer, job.case.epochs, counts)


class Given(InProcess):
    """Samples as many tokens as each answer has, and says that they were the answer."""

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self.answers = answers

    def __call__(
        self, prompts: Sequence[Sequence[int]], params: SamplingParams, *, n: int = 1, seeds: Sequence[int]
    ) -> list[Completion]:
        given = self.answers.to([prompt for prompt in prompts for _ in range(n)])
        free = replace(params, stop_ids=frozenset())
        done = sample(self.model, prompts, free, n=n, seeds=seeds, limits=[len(ids) for ids in given])
        return [replace(c, ids=ids, finish_reason="stop") for c, ids in zip(done, given, strict=True)]


def groups(job: Job, clock: Clock) -> Built:
    trainer = named(job, "Trainer")(
        model=job.load(AutoModelForCausalLM, "policy"),
        reward_funcs=even,
        engine=Given(Answers.of(job)),
        **common(job, clock),
    )
    return Built(trainer, 1, job.counts)


def next_answers(count: int, size: int) -> list[int]:
    """For each of `count` rows the one before it, in a circle within each batch of `size`: TRL's mismatched answers."""
    starts = range(0, count, size)
    return [
        at - 1 if at > start else min(start + size, count) - 1
        for start in starts
        for at in range(start, min(start + size, count))
    ]


def supervised(job: Job, clock: Clock) -> Built:
    reward = job.case.method == "reward"
    loader = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    model = job.load(loader, "reward" if reward else "policy")
    trainer = named(job, "Trainer")(model=model, **common(job, clock))
    if job.case.method == "kto":
        trainer.train_dataset.partner = next_answers(len(trainer.train_dataset), job.case.micro_rows)
    return Built(trainer, 1, job.counts)


def build(job: Job, clock: Clock) -> Built:
    if job.case.groups:
        return groups(job, clock)
    return ppo(job, clock) if job.case.draws else supervised(job, clock)


if __name__ == "__main__":
    main(build, trellis)
