"""The peer's side of a comparison (TRL, by its documented interface); see `worker.main`. It runs in the peer's environment."""

from __future__ import annotations

from typing import Any

import trl
from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from .worker import Answers, Built, Clock, Job, even, main

NAMES = {"reward": "Reward"}


def named(job: Job, kind: str) -> Any:
    """The method's Config or Trainer, where this version has it."""
    method = job.case.method
    name = NAMES.get(method, method.upper()) + kind
    if method in ("ppo", "orpo", "cpo"):
        from importlib import import_module

        return getattr(import_module(f"trl.experimental.{method}"), name)
    return getattr(trl, name)


def common(job: Job, clock: Clock) -> dict[str, Any]:
    """Arguments of every trainer."""
    return {
        "args": job.config(named(job, "Config")),
        "processing_class": AutoTokenizer.from_pretrained(job.folder / "policy"),
        "train_dataset": Dataset.from_list(job.data()),
        "callbacks": [clock],
        **({"peft_config": job.adapter()} if job.case.lora else {}),
    }


def ppo(job: Job, clock: Clock) -> Built:
    reward = job.load(AutoModelForSequenceClassification, "reward")
    seen: list[float] = []

    def count(module: Any, args: Any, kwargs: Any) -> None:
        seen.append(float(kwargs["attention_mask"].sum()))

    reward.base_model.register_forward_pre_hook(count, with_kwargs=True)
    trainer = named(job, "Trainer")(
        model=job.load(AutoModelForCausalLM, "policy"),
        ref_model=None if job.case.lora else job.load(AutoModelForCausalLM, "policy"),
        reward_model=reward,
        value_model=job.load(AutoModelForSequenceClassification, "value"),
        eval_dataset=Dataset.from_list(job.data()),
        **common(job, clock),
    )

    def counts() -> dict[str, float]:
        useful = sum(seen) / (job.case.warm + job.case.steps)
        prompts = sum(len(row["input_ids"]) for row in job.data())
        return {"tokens": useful, "trained": useful - prompts, "texts": float(job.case.rows)}

    return Built(trainer, 1, counts)


def given(cls: Any, answers: Answers) -> Any:
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


def in_order(cls: Any) -> Any:
    """A trainer that takes its rows in order, where its config cannot say so."""

    class InOrder(cls):
        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    return InOrder


def per_answer(cls: Any, averages: bool) -> Any:
    """A trainer whose likelihood is that of each chosen answer per token, as in the papers and on our side. The peer computes its
    own before, of all tokens together (ORPO's with the prompts), which is not used. averages: log-probabilities are per token."""

    class PerAnswer(cls):
        def concatenated_forward(self, model: Any, batch: Any) -> Any:
            chosen, *others = super().concatenated_forward(model, batch)
            tokens = 1 if averages else (batch["chosen_labels"] != -100).sum(1)
            others[3] = -(chosen / tokens).mean()
            return (chosen, *others)

    return PerAnswer


def groups(job: Job, clock: Clock) -> Built:
    trainer = given(named(job, "Trainer"), Answers.of(job))(
        model=job.load(AutoModelForCausalLM, "policy"), reward_funcs=even, **common(job, clock)
    )
    return Built(trainer, 1, job.counts)


def supervised(job: Job, clock: Clock) -> Built:
    reward = job.case.method == "reward"
    loader = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    cls = in_order(named(job, "Trainer"))
    if job.case.method in ("orpo", "cpo"):
        cls = per_answer(cls, averages=job.case.method == "orpo")
    trainer = cls(model=job.load(loader, "reward" if reward else "policy"), **common(job, clock))
    return Built(trainer, 1, job.counts)


def build(job: Job, clock: Clock) -> Built:
    if job.case.groups:
        return groups(job, clock)
    return ppo(job, clock) if job.case.draws else supervised(job, clock)


if __name__ == "__main__":
    main(build, trl)
