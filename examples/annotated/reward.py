"""A reward model, annotated: from pairs of texts, of which people preferred one, to a score for any text.

    python examples/annotated/reward.py
    python examples/annotated/reward.py --model MODEL --data pairs.jsonl --learning_rate 1e-5

Without arguments it takes the pairs that ship with the package, a model of half a million parameters, and one core. The first
command makes the starting model (half a minute); from then on a run is shorter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from start import QUICK_ROWS, starting_policy
from transformers import AutoModelForCausalLM, AutoTokenizer, HfArgumentParser

from trellis import RewardConfig, RewardTrainer, ScriptArguments, get_dataset

TEXTS = [
    "easy to use, great pictures",
    "great pictures",
    "the battery died",
    "poor battery , hard to use",
    "a phone",
]


@dataclass
class Choices:
    """What is not a field of RewardConfig."""

    model: str | None = field(default=None, metadata={"help": "A directory or hub name; default: made here."})
    data: str = field(default="demo:pairs", metadata={"help": "Pairs with the columns chosen and rejected."})
    quick: bool = field(default=False, metadata={"help": "A few steps, to see that everything works."})


# Every line can be changed by a flag of its name.
SETTINGS: dict[str, Any] = {
    "output_dir": "annotated-reward",
    # Half a million parameters, so a hundred times the rate of a large model: 1e-5 there, 1e-4 with LoRA.
    "learning_rate": 1e-3,
    "warmup_steps": 10,
    # People disagree, and a second pass learns their mistakes by heart: eval_accuracy turns down while accuracy goes up.
    "num_train_epochs": 1,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    # A pair of which one side is longer is left out, not cut: half of an answer is another answer.
    "max_length": 64,
    # Only differences count for the loss, so scores may wander off as a whole. This holds them near 0, so that a threshold
    # or PPO's missing_eos_penalty means the same in every run.
    "center_rewards_coefficient": 0.01,
    "logging_steps": 20,
    "save_strategy": "no",
    "report_to": "none",
}


def scores(model: Any, tokenizer: Any, texts: list[str]) -> torch.Tensor:
    """What the saved classifier will say: plain transformers, nothing of Trellis. Each text ends as in training."""
    ended = [text + tokenizer.eos_token for text in texts]
    batch = tokenizer(ended, padding=True, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        return model.eval()(**batch.to(model.device)).logits[:, 0].cpu()


def main() -> None:
    parser = HfArgumentParser((Choices, RewardConfig))
    parser.set_defaults(**SETTINGS)
    choices, args = parser.parse_args_into_dataclasses()
    if choices.quick:
        args.max_steps, args.logging_steps = 5, 1

    splits = get_dataset(ScriptArguments(dataset_name=choices.data))
    train, test = splits["train"], splits.get("test")
    if choices.quick:
        train, test = (
            train.select(range(min(QUICK_ROWS, len(train)))),
            test and test.select(range(min(64, len(test)))),
        )

    # The SFT model is where to start: it has read texts of the kind that it is going to judge. Its trunk is copied and gets a
    # head with one number in place of a vocabulary.
    name = choices.model or starting_policy(quick=choices.quick)
    trainer = RewardTrainer(
        model=AutoModelForCausalLM.from_pretrained(name, dtype="float32"),
        args=args,
        train_dataset=train,
        eval_dataset=test,
        processing_class=AutoTokenizer.from_pretrained(name),
    )
    print(trainer.reports["train_dataset"])  # pairs that are equal, empty or too long are left out here
    tokenizer = trainer.processing_class  # with a padding token that ends nothing

    def measure(when: str) -> None:
        """On held-out pairs: how often the better one scores higher (a coin: 50 %), and the mean difference."""
        if test is None:
            print(f"{when}: no split called test, so scores alone")
        else:
            found = trainer.evaluate()
            print(
                f"{when}: right on {found['eval_accuracy']:.1%} of held-out pairs, loss {found['eval_loss']:.3f}, "
                f"margin {found['eval_margin']:+.2f}, mean score {found['eval_mean_reward']:+.2f}"
            )
        for text, score in zip(TEXTS, scores(trainer.model, tokenizer, TEXTS).tolist(), strict=True):
            print(f"    {score:+.2f}  {text}")

    measure("before")
    trainer.train()
    measure("after")

    # What is often gamed is length: a model of quality should not be one of length. Near 0 is good, near 1 or −1 is not.
    if test is not None:
        texts = [row[side] for row in test.to_list()[:200] for side in ("chosen", "rejected")]
        if all(isinstance(text, str) for text in texts):
            lengths = torch.tensor([float(len(text)) for text in texts])
            together = torch.stack([scores(trainer.model, tokenizer, texts), lengths])
            print(f"correlation of score and length: {torch.corrcoef(together)[0, 1]:+.2f}")

    # A stock classifier: PPOTrainer(reward_model="annotated-reward") or from_pretrained of transformers.
    trainer.save_model()
    print(f"saved in {args.output_dir}")


if __name__ == "__main__":
    main()
