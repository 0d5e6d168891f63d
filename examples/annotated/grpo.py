"""GRPO, annotated: answers that end in a full stop and have about twenty characters, from two functions that look at the text.

    python examples/annotated/grpo.py
    python examples/annotated/grpo.py --model MODEL --data gsm8k.jsonl --reward accuracy --learning_rate 1e-6 \\
        --max_completion_length 512

Without arguments it takes the prompts that ship with the package, a model of half a million parameters, and one core. The first
command makes the starting model (20 seconds of one core); a run takes half a minute.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from start import starting_policy, write
from transformers import AutoModelForCausalLM, AutoTokenizer, HfArgumentParser

from trellis import GRPOConfig, GRPOTrainer, ScriptArguments, get_dataset

WANTED = 20
"""Characters."""


def full_stop(completions: list[str], **columns: Any) -> list[float]:
    """1 for an answer that ends in a full stop, else 0.

    A reward is any function of the answers (and of the data's columns, by name) that returns one number each. Where nearly all
    answers to a prompt earn the same, 0 or 1, its group teaches nothing: frac_reward_zero_std says how often that is.
    """
    return [float(text.rstrip().endswith(".")) for text in completions]


def about_twenty(completions: list[str], **columns: Any) -> list[float]:
    """0 for an answer of exactly 20 characters, −0.1 for each character more or less, −2 at worst.

    Graded, so that answers to a prompt nearly always differ; and bounded, as one absurd answer must not decide what its whole
    group learns.
    """
    return [max(-2.0, -abs(len(text) - WANTED) / 10) for text in completions]


@dataclass
class Choices:
    """What is not a field of GRPOConfig."""

    model: str | None = field(default=None, metadata={"help": "A directory or hub name; default: made here."})
    reward: str | None = field(
        default=None,
        metadata={"help": "The name of a ready reward, such as accuracy; default: the two here."},
    )
    data: str = field(default="demo:prompts", metadata={"help": "Rows with a column `prompt`."})
    quick: bool = field(default=False, metadata={"help": "A few steps, to see that everything works."})


# Every line can be changed by a flag of its name.
SETTINGS: dict[str, Any] = {
    "output_dir": "annotated-grpo",
    # An optimizer step sees 64 answers: 8 to each of 8 prompts. The group is the baseline, so it needs at least two answers, and
    # more prompts per step are worth more than more answers to each.
    "per_device_train_batch_size": 64,
    "num_generations": 8,
    # Evaluation needs no baseline: one answer per prompt.
    "num_generations_eval": 1,
    "max_steps": 60,
    # Each rollout is used for one step and thrown away (steps_per_generation and num_iterations at their defaults): every ratio
    # is 1, nothing is ever clipped, and this is the policy gradient itself.
    "learning_rate": 1e-3,
    # Adam's first steps are as long as any. Without a warm-up they can cost more than the run gains.
    "warmup_steps": 10,
    # What holds the policy near its start, in the loss; 0 (the default) keeps no reference model at all. A rule that cannot be
    # gamed needs none, but these say nothing about language: without it, any twenty characters are as good.
    "beta": 0.06,
    # What counts how much, before rewards are added and compared in the group. They are logged apart as well.
    "reward_weights": [1.0, 0.5],
    "max_completion_length": 14,
    "temperature": 1.0,
    "logging_steps": 5,
    "save_strategy": "no",
    "report_to": "none",
}


def main() -> None:
    parser = HfArgumentParser((Choices, GRPOConfig))
    parser.set_defaults(**SETTINGS)
    choices, args = parser.parse_args_into_dataclasses()
    if choices.quick:
        args.max_steps = 3

    # The policy has to do what is wanted now and then by chance: GRPO compares its answers with each other, it shows it none.
    name = choices.model or starting_policy(quick=choices.quick)
    reward = choices.reward or [full_stop, about_twenty]
    if choices.reward:
        args.reward_weights = None
    splits = get_dataset(ScriptArguments(dataset_name=choices.data))
    held_out = splits["test"].select(range(min(len(splits["test"]), 24 if choices.quick else 200)))

    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(name, dtype="float32"),
        reward_funcs=reward,
        args=args,
        train_dataset=splits["train"],
        eval_dataset=held_out,
        processing_class=AutoTokenizer.from_pretrained(name),
    )
    print(trainer.schedule)  # how many rollouts, prompts and answers this makes

    def measure(when: str) -> None:
        """Held-out prompts, from the same draws every time, so that two evaluations can be compared."""
        prompts = held_out["prompt"]
        answers = write(trainer.policy, trainer.processing_class, prompts, length=args.max_completion_length)
        found = trainer.evaluate()
        near = sum(abs(len(text) - WANTED) <= 5 for text in answers) / len(answers)
        stopped = sum(full_stop(answers)) / len(answers)
        print(
            f"{when}: reward {found['eval_reward']:.3f}, full stop {stopped:.1%}, {WANTED} ± 5 characters {near:.1%}, "
            f"KL {found.get('eval_kl', 0.0):.2f} nats per answer, cut off {found['eval_completions/clipped_ratio']:.1%}"
        )
        print("\n".join(f"    {len(a):3} {p}|{a}" for p, a in zip(prompts[:6], answers[:6], strict=True)))

    measure("before")
    trainer.train()
    measure("after")

    # A stock model with its tokenizer; metrics.jsonl lies beside it.
    trainer.save_model()
    print(f"saved in {args.output_dir}")


if __name__ == "__main__":
    main()
