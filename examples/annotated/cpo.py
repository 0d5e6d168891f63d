"""CPO and SimPO, annotated: DPO's comparison without its reference, one model and one forward pass.

    python examples/annotated/cpo.py                                    (SimPO's comparison, with imitation)
    python examples/annotated/cpo.py --cpo_alpha 0                      (SimPO as published)
    python examples/annotated/cpo.py --loss_type sigmoid --beta 0.1 --simpo_gamma 0.5          (CPO's comparison of sums;
        simpo_gamma is put back to its default, as this loss does not read it and would refuse another value)
    python examples/annotated/cpo.py --model MODEL --data pairs.jsonl --learning_rate 1e-6 --max_length 1024

Without arguments it takes the pairs that ship with the package and a model of half a million parameters, which the first run
makes in half a minute of one core.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from start import QUICK_ROWS, starting_judge, starting_policy, write
from transformers import AutoModelForCausalLM, AutoTokenizer, HfArgumentParser

from trellis import CPOConfig, CPOTrainer, ScriptArguments, get_dataset
from trellis.demo.data import load

SHIPPED = "demo:pairs"


@dataclass
class Choices:
    """What is not a field of CPOConfig."""

    model: str | None = field(default=None, metadata={"help": "A directory or hub name; default: made here."})
    data: str = field(
        default=SHIPPED, metadata={"help": "Pairs: chosen, rejected, and a prompt if there is one."}
    )
    quick: bool = field(default=False, metadata={"help": "A few steps, to see that everything works."})


# Every line can be changed by a flag of its name.
SETTINGS: dict[str, Any] = {
    "output_dir": "annotated-cpo",
    # "sigmoid" compares sums of log-probabilities, and of sums the shorter answer has the larger one whatever it says.
    # "simpo" compares averages per token.
    "loss_type": "simpo",
    # Averages differ by tenths of a nat, sums by tens: hence 2 here and 0.1 with sigmoid.
    "beta": 2.0,
    # The better answer is to be ahead by simpo_gamma / beta nats per token, 0.5 here.
    "simpo_gamma": 1.0,
    # What imitation of the better answer counts. There is no reference that would pull back: with 0 only a small learning rate
    # and an early end keep the policy writing what it could write before.
    "cpo_alpha": 1.0,
    # Half a million parameters; a large model takes 3e-7 to 1e-6 without imitation, ten times that with LoRA.
    "learning_rate": 1e-3,
    "warmup_steps": 10,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "max_length": 64,
    "logging_steps": 25,
    "save_strategy": "no",
    "report_to": "none",
}


def main() -> None:
    parser = HfArgumentParser((Choices, CPOConfig))
    parser.set_defaults(**SETTINGS)
    choices, args = parser.parse_args_into_dataclasses()
    if choices.quick:
        args.max_steps, args.logging_steps = 3, 1

    # The shipped pairs have no prompt: two whole phrases, one of praise.
    splits = get_dataset(ScriptArguments(dataset_name=choices.data))
    train, test = splits["train"], splits.get("test")
    if choices.quick:
        train = train.select(range(min(QUICK_ROWS, len(train))))
        test = test and test.select(range(min(64, len(test))))

    name = choices.model or starting_policy(quick=choices.quick)
    tokenizer = AutoTokenizer.from_pretrained(name)
    trainer = CPOTrainer(
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
        """The comparison on held-out pairs, the likelihood that imitation is about, and what the policy writes."""
        if test is not None:
            found = trainer.evaluate()
            print(
                f"{when}: held-out loss {found['eval_loss']:.3f}, the better answer is ahead in "
                f"{found['eval_rewards/accuracies']:.1%} of pairs, margin {found['eval_rewards/margins']:+.2f}; "
                f"log-probability of chosen {found['eval_logps/chosen']:.2f}, rejected {found['eval_logps/rejected']:.2f}, "
                f"imitation loss {found['eval_nll_loss']:.3f}"
            )
        if choices.data == SHIPPED:
            prompts = [row["prompt"] for row in load().prompts_test[: 32 if choices.quick else None]]
            texts = [p + a for p, a in zip(prompts, write(trainer.model, tokenizer, prompts), strict=True)]
            print(f"{when}: praise {sum(judge.approves(texts)) / len(texts):.1%} of {len(texts)} texts")
            print("\n".join(f"    {text}" for text in texts[:6]))

    measure("before")
    trainer.train()
    measure("after")
    trainer.save_model()
    print(f"saved in {args.output_dir}")


if __name__ == "__main__":
    main()
