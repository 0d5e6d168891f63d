"""Our side of a comparison; see `worker.main`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import trellis
from trellis.rollout import Completion, InProcess, SamplingParams, sample

from .worker import Answers, Built, Clock, Job, even, main


def ppo(job: Job, clock: Clock) -> Built:
    trainer = trellis.PPOTrainer(
        args=trellis.PPOConfig(**job.arguments()),
        processing_class=AutoTokenizer.from_pretrained(job.folder / "policy"),
        model=job.load(AutoModelForCausalLM, "policy"),
        reward_model=job.load(AutoModelForSequenceClassification, "reward"),
        value_model=job.load(AutoModelForSequenceClassification, "value"),
        train_dataset=job.data(),
        callbacks=[clock],
    )

    def tokens() -> tuple[float, float]:
        return float(trainer.rollout.attention_mask.sum()), float(trainer.rollout.loss_mask.sum())

    return Built(trainer, job.case.epochs, tokens)


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
    name = job.case.method.upper()
    trainer = getattr(trellis, f"{name}Trainer")(
        model=job.load(AutoModelForCausalLM, "policy"),
        reward_funcs=even,
        args=getattr(trellis, f"{name}Config")(**job.arguments()),
        processing_class=AutoTokenizer.from_pretrained(job.folder / "policy"),
        train_dataset=job.data(),
        callbacks=[clock],
        engine=Given(Answers.of(job)),
    )
    return Built(trainer, 1, job.tokens)


def supervised(job: Job, clock: Clock) -> Built:
    name = {"sft": "SFT", "dpo": "DPO", "reward": "Reward"}[job.case.method]
    config, cls = getattr(trellis, f"{name}Config"), getattr(trellis, f"{name}Trainer")
    reward = job.case.method == "reward"
    loader = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    trainer = cls(
        model=job.load(loader, "reward" if reward else "policy"),
        args=config(**job.arguments()),
        processing_class=AutoTokenizer.from_pretrained(job.folder / "policy"),
        train_dataset=job.data(),
        callbacks=[clock],
    )
    return Built(trainer, 1, job.tokens)


def build(job: Job, clock: Clock) -> Built:
    if job.case.groups:
        return groups(job, clock)
    return ppo(job, clock) if job.case.draws else supervised(job, clock)


if __name__ == "__main__":
    main(build, trellis)
