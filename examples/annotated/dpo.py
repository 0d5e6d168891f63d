"""DPO, annotated: a policy learns from pairs of its own texts, of which a reward model liked one better.

    python examples/annotated/dpo.py
    python examples/annotated/dpo.py --model MODEL --data pairs.jsonl --learning_rate 1e-6 --max_length 1024

Without arguments everything is made from the texts that ship with the package: the first run takes half a minute of one core
longer, for a policy and a reward model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from start import starting_judge, starting_policy, starting_reward_model, write
from transformers import AutoModelForCausalLM, AutoTokenizer, HfArgumentParser

from trellis import DPOConfig, DPOTrainer, ScriptArguments, get_dataset
from trellis.demo.data import load
from trellis.rewards import RewardSet


@dataclass
class Choices:
    """What is not a field of DPOConfig."""

    model: str | None = field(default=None, metadata={"help": "A directory or hub name; default: made here."})
    data: str | None = field(
        default=None, metadata={"help": "Pairs (prompt, chosen, rejected); default: sampled."}
    )
    quick: bool = field(default=False, metadata={"help": "A few steps, to see that everything works."})


# Every line can be changed by a flag of its name.
SETTINGS: dict[str, Any] = {
    "output_dir": "annotated-dpo",
    # How far the policy may go: a pair counts as settled a few 1/beta nats from the reference. Start here with any model.
    "beta": 0.1,
    # Half a million parameters; a large model takes 5e-7 to 5e-6 in full training, 1e-5 to 1e-4 with LoRA.
    "learning_rate": 5e-4,
    "warmup_steps": 5,
    # Few pairs, so several passes. With many pairs one is enough, and a second one fits their mistakes.
    "num_train_epochs": 3,
    # Pairs per optimizer step = this × gradient_accumulation_steps × processes. Only the product changes what is learned.
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    # Of a prompt with its longer answer. What is cut is counted in the report below.
    "max_length": 64,
    "logging_steps": 10,
    "save_strategy": "no",
    "report_to": "none",
}
SAMPLES, HELD_OUT = 4, 80


def sampled_pairs(
    model: Any, tokenizer: Any, quick: bool
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """For each prompt the best and the worst of four answers of the policy itself, (to train on, held out).

    DPO only says something about texts that are in a pair. Where they are the policy's own, that is about what it would really
    write; pairs that somebody else wrote may teach it to tell two texts apart neither of which it would ever have written.
    """
    prompts = [row["prompt"] for row in load().prompts[: 80 if quick else 600]]
    answers = write(model, tokenizer, prompts * SAMPLES, length=24)
    ids = tokenizer(answers, add_special_tokens=False)["input_ids"]
    judged = RewardSet(starting_reward_model(quick=quick))(
        prompts=prompts * SAMPLES, completions=answers, completion_ids=ids, finished=[True] * len(ids)
    )
    scores, pairs = judged.total.view(SAMPLES, -1), []
    for i, prompt in enumerate(prompts):
        best, worst = (
            answers[int(at) * len(prompts) + i] for at in (scores[:, i].argmax(), scores[:, i].argmin())
        )
        # Equal or empty answers would be left out (and counted) by the trainer anyway.
        if best and worst and best != worst:
            pairs.append({"prompt": prompt, "chosen": best, "rejected": worst})
    held_out = 20 if quick else HELD_OUT
    return pairs[:-held_out], pairs[-held_out:]


def main() -> None:
    parser = HfArgumentParser((Choices, DPOConfig))
    parser.set_defaults(**SETTINGS)
    choices, args = parser.parse_args_into_dataclasses()
    if choices.quick:
        args.max_steps, args.logging_steps = 3, 1

    name = choices.model or starting_policy(quick=choices.quick)
    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModelForCausalLM.from_pretrained(name, dtype="float32")
    if choices.data is None:
        train, test = sampled_pairs(model.eval(), tokenizer, choices.quick)
    else:
        splits = get_dataset(ScriptArguments(dataset_name=choices.data))
        train, test = splits["train"], splits.get("test")

    # No ref_model: the reference is a frozen copy of the policy as it is now. With a LoRA adapter (peft_config=…) it is the
    # model with the adapter off, and there is no second model in memory.
    trainer = DPOTrainer(
        model=model, args=args, train_dataset=train, eval_dataset=test, processing_class=tokenizer
    )
    print(trainer.reports["train_dataset"])

    # A classifier of words that has seen neither the texts nor the reward model that made the pairs.
    judge = starting_judge(quick=choices.quick)

    def measure(when: str) -> None:
        """On held-out pairs what DPO sees of itself, and what the policy writes, which DPO does not see."""
        if test is not None:
            found = trainer.evaluate()
            print(
                f"{when}: held-out loss {found['eval_loss']:.3f}, prefers the better answer in "
                f"{found['eval_rewards/accuracies']:.0%} of pairs, margin {found['eval_rewards/margins']:+.2f}; "
                f"log-probability of chosen {found['eval_logps/chosen']:.1f}, rejected {found['eval_logps/rejected']:.1f}"
            )
        if choices.data is None:
            prompts = [row["prompt"] for row in load().prompts_test[: 32 if choices.quick else None]]
            texts = [p + a for p, a in zip(prompts, write(trainer.model, tokenizer, prompts), strict=True)]
            print(f"{when}: praise {sum(judge.approves(texts)) / len(texts):.1%} of {len(texts)} texts")
            print("\n".join(f"    {text}" for text in texts[:6]))

    measure("before")  # rewards are exactly 0 here and the loss is log 2: the policy is its own reference
    trainer.train()
    measure("after")
    trainer.save_model()  # from_pretrained reads it; the reference is not saved, it is the model that this began with
    print(f"saved in {args.output_dir}")


if __name__ == "__main__":
    main()
