"""KTO, annotated: a policy learns from thumbs up and thumbs down on single answers, no pairs needed.

    python examples/annotated/kto.py
    python examples/annotated/kto.py --model MODEL --data labelled.jsonl --learning_rate 1e-6 --max_length 1024

Without arguments it takes the labelled phrases that ship with the package and a model of half a million parameters, which the
first run makes in half a minute of one core.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from start import starting_judge, starting_policy, write
from transformers import AutoModelForCausalLM, AutoTokenizer, HfArgumentParser

from trellis import KTOConfig, KTOTrainer, ScriptArguments, get_dataset
from trellis.demo.data import JUDGE_ROWS, load


@dataclass
class Choices:
    """What is not a field of KTOConfig."""

    model: str | None = field(default=None, metadata={"help": "A directory or hub name; default: made here."})
    data: str | None = field(
        default=None,
        metadata={"help": "Rows with prompt, completion and label, or pairs; default: the demo's."},
    )
    quick: bool = field(default=False, metadata={"help": "A few steps, to see that everything works."})


# Every line can be changed by a flag of its name.
SETTINGS: dict[str, Any] = {
    "output_dir": "annotated-kto",
    # 1/beta nats from the reference point an answer has had its say. Larger: a shorter way.
    "beta": 0.1,
    # Half a million parameters; a large model takes 5e-7 to 5e-6 in full training, 1e-5 to 1e-4 with LoRA.
    "learning_rate": 5e-4,
    "warmup_steps": 5,
    "num_train_epochs": 1,
    # Likes and dislikes are about equally many here. With nine likes for one dislike write undesirable_weight=9: the trainer
    # counts, and says which weights would balance your labels.
    "desirable_weight": 1.0,
    "undesirable_weight": 1.0,
    # Rows per optimizer step = this × gradient_accumulation_steps × processes. The KL term is one number for the step however
    # it is cut, so a batch of one row is as good as any, only slower.
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "max_length": 64,
    "logging_steps": 15,
    "save_strategy": "no",
    "report_to": "none",
}
ROWS, HELD_OUT = 2400, 200


def thumbs(quick: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Two words, what a customer wrote after them, and whether it is praise; (to train on, held out). The judge's rows stay
    unseen."""
    splits = get_dataset(ScriptArguments(dataset_name="demo:thumbs"))
    train, test = splits["train"].to_list()[:-JUDGE_ROWS], splits["test"].to_list()
    # A prompt may have one answer only, or several; nobody has to have compared two of them.
    train, test = ([row for row in rows if row["completion"]] for rows in (train, test))
    return (train[:160], test[:32]) if quick else (train[:ROWS], test[:HELD_OUT])


def main() -> None:
    parser = HfArgumentParser((Choices, KTOConfig))
    parser.set_defaults(**SETTINGS)
    choices, args = parser.parse_args_into_dataclasses()
    if choices.quick:
        args.max_steps, args.logging_steps = 3, 1

    name = choices.model or starting_policy(quick=choices.quick)
    tokenizer = AutoTokenizer.from_pretrained(name)
    if choices.data is None:
        train, test = thumbs(choices.quick)
    else:
        splits = get_dataset(ScriptArguments(dataset_name=choices.data))
        train, test = splits["train"], splits.get("test")

    # Here rows are read and labels counted; a warning would say that they do not balance. The reference is the policy as it is
    # now: a frozen copy, or with a LoRA adapter (peft_config=…) the model with the adapter off.
    trainer = KTOTrainer(
        model=AutoModelForCausalLM.from_pretrained(name, dtype="float32"),
        args=args,
        train_dataset=train,
        eval_dataset=test,
        processing_class=tokenizer,
    )
    print(trainer.reports["train_dataset"])

    # A classifier of words, trained on rows that nothing here has seen.
    judge = starting_judge(quick=choices.quick)

    def measure(when: str) -> None:
        """On held-out rows how far liked and disliked answers have parted, and what the policy writes."""
        if test is not None:
            found = trainer.evaluate()
            print(
                f"{when}: held-out loss {found['eval_loss']:.3f}, reward of liked answers {found['eval_rewards/chosen']:+.2f}, "
                f"of disliked ones {found['eval_rewards/rejected']:+.2f}, z {found.get('eval_kl', 0.0):.2f}; "
                f"log-probability {found['eval_logps/chosen']:.1f} and {found['eval_logps/rejected']:.1f}"
            )
        if choices.data is None:
            prompts = [row["prompt"] for row in load().prompts_test[: 32 if choices.quick else None]]
            texts = [p + a for p, a in zip(prompts, write(trainer.model, tokenizer, prompts), strict=True)]
            print(f"{when}: praise {sum(judge.approves(texts)) / len(texts):.1%} of {len(texts)} texts")
            print("\n".join(f"    {text}" for text in texts[:6]))

    measure("before")  # rewards and z are exactly 0, and the loss is half a row's weight
    trainer.train()
    measure("after")
    trainer.save_model()
    print(f"saved in {args.output_dir}")


if __name__ == "__main__":
    main()
