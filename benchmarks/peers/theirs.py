"""The peer's side of a comparison (TRL, by its documented interface); see `worker.main`. It runs in the peer's environment."""

from __future__ import annotations

from typing import Any

import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from .worker import Answers, Built, Clock, Job, even, main


def ppo(job: Job, clock: Clock) -> Built:
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    reward = job.load(AutoModelForSequenceClassification, "reward")
    seen: list[float] = []

    def count(module: Any, args: Any, kwargs: Any) -> None:
        seen.append(float(kwargs["attention_mask"].sum()))

    reward.base_model.register_forward_pre_hook(count, with_kwargs=True)
    trainer = PPOTrainer(
        args=PPOConfig(**job.arguments()),
        processing_class=AutoTokenizer.from_pretrained(job.folder / "policy"),
        model=job.load(AutoModelForCausalLM, "policy"),
        ref_model=job.load(AutoModelForCausalLM, "policy"),
        reward_model=reward,
        value_model=job.load(AutoModelForSequenceClassification, "value"),
        train_dataset=Dataset.from_list(job.data()),
        eval_dataset=Dataset.from_list(job.data()),
        callbacks=[clock],
    )

    def tokens() -> tuple[float, float]:
        useful = sum(seen) / (job.case.warm + job.case.steps)
        return useful, useful - sum(len(row["input_ids"]) for row in job.data())

    return Built(trainer, 1, tokens)


def given(cls: type, answers: Answers) -> type:
    """A trainer that samples as many steps as the longest answer has, and takes the answers for what was sampled."""

    class Given(cls):
        def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
            wanted = answers.to(prompt_ids)
            for config in (self.generation_config, self.model.generation_config):
                config.eos_token_id = None
            self.generation_config.max_new_tokens = max(map(len, wanted))
            found = super()._generate_single_turn(prompt_ids, *args, **kwargs)
            return (wanted, *found[1:]) if isinstance(found, tuple) else wanted  # RLOO: the tokens alone

    return Given


def groups(job: Job, clock: Clock) -> Built:
    name = job.case.method.upper()
    trainer = given(getattr(trl, f"{name}Trainer"), Answers.of(job))(
        model=job.load(AutoModelForCausalLM, "policy"),
        reward_funcs=even,
        args=getattr(trl, f"{name}Config")(**job.arguments()),
        processing_class=AutoTokenizer.from_pretrained(job.folder / "policy"),
        train_dataset=Dataset.from_list(job.data()),
        callbacks=[clock],
    )
    return Built(trainer, 1, job.tokens)


def supervised(job: Job, clock: Clock) -> Built:
    name = {"sft": "SFT", "dpo": "DPO", "reward": "Reward"}[job.case.method]
    config, cls = getattr(trl, f"{name}Config"), getattr(trl, f"{name}Trainer")
    reward = job.case.method == "reward"
    loader = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    trainer = cls(
        model=job.load(loader, "reward" if reward else "policy"),
        args=config(**job.arguments()),
        processing_class=AutoTokenizer.from_pretrained(job.folder / "policy"),
        train_dataset=Dataset.from_list(job.data()),
        callbacks=[clock],
    )
    return Built(trainer, 1, job.tokens)


def build(job: Job, clock: Clock) -> Built:
    if job.case.groups:
        return groups(job, clock)
    return ppo(job, clock) if job.case.draws else supervised(job, clock)


if __name__ == "__main__":
    main(build, trl)
