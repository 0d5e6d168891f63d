"""Our side of a comparison; see `worker.main`."""

from __future__ import annotations

from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import trellis

from .worker import Built, Clock, Job, main


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
    return ppo(job, clock) if job.case.draws else supervised(job, clock)


if __name__ == "__main__":
    main(build, trellis)
