"""Supervised fine-tuning, annotated: a policy that writes praise and complaints alike learns from what people liked.

    python examples/annotated/sft.py
    python examples/annotated/sft.py --model MODEL --data chats.jsonl --learning_rate 2e-5 --num_train_epochs 1

Without arguments it takes the texts that ship with the package, a model of half a million parameters, and one core. The first
command makes the starting model (half a minute); from then on a run is shorter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from start import starting_judge, starting_policy, write
from transformers import AutoModelForCausalLM, AutoTokenizer, HfArgumentParser

from trellis import ScriptArguments, SFTConfig, SFTTrainer, get_dataset
from trellis.demo.data import JUDGE_ROWS, load


@dataclass
class Choices:
    """What is not a field of SFTConfig."""

    model: str | None = field(default=None, metadata={"help": "A directory or hub name; default: made here."})
    data: str | None = field(default=None, metadata={"help": "Your data; default: liked texts of the demo."})
    quick: bool = field(default=False, metadata={"help": "A few steps, to see that everything works."})


# Every line can be changed by a flag of its name.
SETTINGS: dict[str, Any] = {
    "output_dir": "annotated-sft",
    # Half a million parameters, so a hundred times the rate of a large model: 1e-5 to 5e-5 there, ten times that with LoRA.
    "learning_rate": 1e-3,
    "warmup_steps": 10,
    # One pass. With a second one the training loss falls further, and eval_loss says whether that is learning or memory.
    "num_train_epochs": 1,
    # Rows per optimizer step = this × gradient_accumulation_steps × processes. Only the product changes what is learned.
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    # Longer rows are cut, and counted in the report that is printed below: two of 3825 here.
    "max_length": 64,
    "logging_steps": 20,
    "save_strategy": "no",
    "report_to": "none",
}


def liked(split: str) -> list[dict[str, str]]:
    """Prompts of two words with what a satisfied customer wrote after them. The judge's rows stay unseen."""
    rows = get_dataset(ScriptArguments(dataset_name="demo:thumbs"))[split].to_list()
    rows = rows[:-JUDGE_ROWS] if split == "train" else rows
    # Two columns called prompt and completion: by that the trainer knows that only the completion is to be learned.
    return [
        {"prompt": r["prompt"], "completion": r["completion"]} for r in rows if r["label"] and r["completion"]
    ]


def main() -> None:
    parser = HfArgumentParser((Choices, SFTConfig))
    parser.set_defaults(**SETTINGS)
    choices, args = parser.parse_args_into_dataclasses()
    if choices.quick:
        args.max_steps, args.logging_steps = 5, 1

    # The tokenizer lies beside the model, and its end token is what the model learns to stop with.
    name = choices.model or starting_policy(quick=choices.quick)
    tokenizer = AutoTokenizer.from_pretrained(name)

    # Held-out rows are what tells learning from knowing by heart.
    if choices.data is None:
        train, test = liked("train"), liked("test")
    else:
        splits = get_dataset(ScriptArguments(dataset_name=choices.data))
        train, test = splits["train"], splits.get("test")
    if choices.quick and choices.data is None:
        train, test = train[:160], test[:64]

    # The data is read here, before the first step: a column that is missing or a length that leaves nothing is said now.
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(name, dtype="float32"),
        args=args,
        train_dataset=train,
        eval_dataset=test,
        processing_class=tokenizer,
    )
    print(trainer.report)  # how many rows were kept and cut, and whether they end in a token that is trained

    def measure(when: str) -> None:
        """Held-out loss, and what the policy writes: a loss alone does not show what was learned."""
        if choices.data is None:
            loss = trainer.evaluate()["eval_loss"]
            prompts = [row["prompt"] for row in load().prompts_test[: 32 if choices.quick else None]]
            texts = [p + a for p, a in zip(prompts, write(trainer.model, tokenizer, prompts), strict=True)]
            praise = sum(judge.approves(texts)) / len(texts)
            print(
                f"{when}: held-out loss {loss:.3f} nats per token, praise {praise:.1%} of {len(texts)} texts"
            )
            print("\n".join(f"    {text}" for text in texts[:6]))
        elif test is not None:
            print(f"{when}: held-out loss {trainer.evaluate()['eval_loss']:.3f} nats per token")

    judge = starting_judge(
        quick=choices.quick
    )  # a classifier of words, trained on texts that no model here has read
    measure("before")
    trainer.train()
    measure("after")

    # A directory that from_pretrained reads, the tokenizer included; metrics.jsonl lies beside it.
    trainer.save_model()
    print(f"saved in {args.output_dir}")


if __name__ == "__main__":
    main()
