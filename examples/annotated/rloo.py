"""RLOO, annotated: the task of ppo.py without a critic. Answers to one prompt are judged against each other.

    python examples/annotated/rloo.py
    python examples/annotated/rloo.py --model MY_SFT --reward MY_REWARD --data prompts.jsonl --learning_rate 1e-6 --beta 0.05

Without arguments it takes the prompts that ship with the package, models of half a million parameters, and one core. The first
command makes the starting models (40 seconds of one core); a run takes as long again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from start import starting_judge, starting_policy, starting_reward_model, write
from transformers import AutoModelForCausalLM, AutoTokenizer, HfArgumentParser

from trellis import RLOOConfig, RLOOTrainer, ScriptArguments, get_dataset
from trellis.demo.measure import distinct_bigrams


@dataclass
class Choices:
    """What is not a field of RLOOConfig."""

    model: str | None = field(default=None, metadata={"help": "An SFT model; default: made here."})
    reward: str | None = field(default=None, metadata={"help": "A sequence classifier; default: made here."})
    data: str = field(default="demo:prompts", metadata={"help": "Rows with a column `prompt`."})
    quick: bool = field(default=False, metadata={"help": "A few steps, to see that everything works."})


# Every line can be changed by a flag of its name.
SETTINGS: dict[str, Any] = {
    "output_dir": "annotated-rloo",
    # 64 answers per optimizer step: 4 to each of 16 prompts. The baseline of an answer is the mean of the other three. With two
    # (the default) it is one other answer: noisy, but then there are twice as many prompts.
    "per_device_train_batch_size": 64,
    "num_generations": 4,
    # Evaluation needs no baseline: one answer per prompt.
    "num_generations_eval": 1,
    "max_steps": 60,
    "learning_rate": 5e-4,
    "warmup_steps": 10,
    # The price of a nat away from the reference. It is paid in the reward, so answers that drift get a lower advantage, and what
    # a whole group drifts is part of its baseline.
    "beta": 0.1,
    # A reward model's verdict has no bound. One extreme number would be the advantage of its answer, and minus a third of it that
    # of the three others: cut it off where real scores end.
    "reward_clip_range": [-5.0, 5.0],
    "max_completion_length": 14,
    "temperature": 1.0,
    "logging_steps": 5,
    "save_strategy": "no",
    "report_to": "none",
}


def main() -> None:
    parser = HfArgumentParser((Choices, RLOOConfig))
    parser.set_defaults(**SETTINGS)
    choices, args = parser.parse_args_into_dataclasses()
    if choices.quick:
        args.max_steps = 3

    name = choices.model or starting_policy(quick=choices.quick)
    reward = choices.reward or starting_reward_model(quick=choices.quick)
    splits = get_dataset(ScriptArguments(dataset_name=choices.data))
    held_out = splits["test"].select(range(min(len(splits["test"]), 24 if choices.quick else 200)))

    trainer = RLOOTrainer(
        model=AutoModelForCausalLM.from_pretrained(name, dtype="float32"),
        reward_funcs=reward,  # a classifier by its folder; a Python function would do as well
        args=args,
        train_dataset=splits["train"],
        eval_dataset=held_out,
        processing_class=AutoTokenizer.from_pretrained(name),
    )
    print(trainer.schedule)  # how many rollouts, prompts and answers this makes

    def measure(when: str) -> None:
        """Four figures that have to be read together: any of the first two can be bought with the last two."""
        found = trainer.evaluate()  # always the same draws, so that two evaluations can be compared
        prompts = held_out["prompt"]
        answers = write(trainer.policy, trainer.processing_class, prompts, length=args.max_completion_length)
        texts = [p + a for p, a in zip(prompts, answers, strict=True)]
        praise = sum(judge.approves(texts)) / len(texts)
        print(
            f"{when}: score {found['eval_reward']:.2f}, praise {praise:.1%} says a judge that was not trained on, "
            f"KL {found.get('eval_kl', 0.0):.2f} nats per answer, distinct word pairs {distinct_bigrams(texts):.1%}"
        )
        print("\n".join(f"    {text}" for text in texts[:6]))

    judge = starting_judge(quick=choices.quick)
    measure("before")
    trainer.train()
    measure("after")

    # A stock model with its tokenizer; metrics.jsonl lies beside it.
    trainer.save_model()
    print(f"saved in {args.output_dir}")


if __name__ == "__main__":
    main()
