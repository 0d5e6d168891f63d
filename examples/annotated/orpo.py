"""ORPO, annotated: imitation of the better text and a comparison with the worse one, in one run and with one model.

    python examples/annotated/orpo.py
    python examples/annotated/orpo.py --beta 0.001                      (as good as imitation alone)
    python examples/annotated/orpo.py --model MODEL --data pairs.jsonl --learning_rate 8e-6 --max_length 1024

Without arguments it takes the pairs that ship with the package and a model of half a million parameters, which the first run
makes in half a minute of one core.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from start import QUICK_ROWS, starting_judge, starting_policy, write
from transformers import AutoModelForCausalLM, AutoTokenizer, HfArgumentParser

from trellis import ORPOConfig, ORPOTrainer, ScriptArguments, get_dataset
from trellis.demo.data import load

SHIPPED = "demo:pairs"


@dataclass
class Choices:
    """What is not a field of ORPOConfig."""

    model: str | None = field(default=None, metadata={"help": "A directory or hub name; default: made here."})
    data: str = field(
        default=SHIPPED, metadata={"help": "Pairs: chosen, rejected, and a prompt if there is one."}
    )
    quick: bool = field(default=False, metadata={"help": "A few steps, to see that everything works."})


# Every line can be changed by a flag of its name.
SETTINGS: dict[str, Any] = {
    "output_dir": "annotated-orpo",
    # The paper's λ: what the comparison counts beside imitation. 0.1 is the usual value for a base model, where imitation has
    # much to do. This policy has read all texts already, so the comparison is what can still teach it something.
    "beta": 1.0,
    # ORPO is fine-tuning too, so it takes a fine-tuning rate: larger than DPO's. 5e-6 to 2e-5 for a large model.
    "learning_rate": 1e-3,
    "warmup_steps": 10,
    # One pass. Nothing pulls back to a reference, so a second one over-fits as fine-tuning would: eval_nll_loss shows it.
    "num_train_epochs": 1,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "max_length": 64,
    "logging_steps": 25,
    "save_strategy": "no",
    "report_to": "none",
}


def main() -> None:
    parser = HfArgumentParser((Choices, ORPOConfig))
    parser.set_defaults(**SETTINGS)
    choices, args = parser.parse_args_into_dataclasses()
    if choices.quick:
        args.max_steps, args.logging_steps = 3, 1

    # The shipped pairs have no prompt: two whole phrases, one of praise. Then all of both sides is answer (but what they begin
    # with in common, and the first token, which has no past that it could be predicted from).
    splits = get_dataset(ScriptArguments(dataset_name=choices.data))
    train, test = splits["train"], splits.get("test")
    if choices.quick:
        train = train.select(range(min(QUICK_ROWS, len(train))))
        test = test and test.select(range(min(64, len(test))))

    # One model. DPO would keep a second one (or an adapter's base) to measure from; ORPO measures nothing but the policy.
    name = choices.model or starting_policy(quick=choices.quick)
    tokenizer = AutoTokenizer.from_pretrained(name)
    trainer = ORPOTrainer(
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
        """Both terms on held-out pairs, and what the policy writes."""
        if test is not None:
            found = trainer.evaluate()
            print(
                f"{when}: held-out imitation loss {found['eval_nll_loss']:.3f}, log-odds of chosen − rejected "
                f"{found['eval_log_odds_chosen']:+.2f}, the better answer is likelier per token in "
                f"{found['eval_rewards/accuracies']:.1%} of pairs; log-probability per token of chosen "
                f"{found['eval_logps/chosen']:.2f}, rejected {found['eval_logps/rejected']:.2f}"
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
