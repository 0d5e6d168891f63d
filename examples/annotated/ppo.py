"""PPO, annotated: a policy that writes praise and complaints alike learns to please a reward model, and stays near its start.

    python examples/annotated/ppo.py
    python examples/annotated/ppo.py --model MY_SFT --reward MY_REWARD --data prompts.jsonl --learning_rate 3e-6 --kl_coef 0.05

Without arguments it takes the prompts that ship with the package, models of half a million parameters, and one core. The first
command makes the starting models (40 seconds of one core); a run takes as long again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from start import starting_judge, starting_policy, starting_reward_model, write
from transformers import AutoModelForCausalLM, AutoTokenizer, HfArgumentParser

from trellis import PPOConfig, PPOTrainer, ScriptArguments, get_dataset
from trellis.demo.measure import distinct_bigrams


@dataclass
class Choices:
    """What is not a field of PPOConfig."""

    model: str | None = field(default=None, metadata={"help": "An SFT model; default: made here."})
    reward: str | None = field(default=None, metadata={"help": "A sequence classifier; default: made here."})
    data: str = field(default="demo:prompts", metadata={"help": "Rows with a column `prompt`."})
    quick: bool = field(default=False, metadata={"help": "A few steps, to see that everything works."})


# Every line can be changed by a flag of its name.
SETTINGS: dict[str, Any] = {
    "output_dir": "annotated-ppo",
    # A rollout is per_device_train_batch_size × gradient_accumulation_steps × processes answers, here 64, and 40 of them are
    # sampled. A noisy reward wants larger rollouts, not more epochs on each.
    "per_device_train_batch_size": 64,
    "total_episodes": 40 * 64,
    # Each rollout is cut into 4 minibatches and passed over twice: 8 optimizer steps. The more of them, the further the policy is
    # from the one that sampled, and the more ratios the clip cuts off (policy/clipfrac_avg).
    "num_mini_batches": 4,
    "num_ppo_epochs": 2,
    # A hundred times that of a model with a billion parameters (1e-6 to 5e-6). Policy and critic share it.
    "learning_rate": 3e-4,
    # What a nat away from the reference costs, in units of the score. It decides where training ends: at 0.03 the policy wins
    # more by writing the same few words, at 0.5 it keeps more of its variety and scores less.
    "kl_coef": 0.15,
    # The longest answer in tokens. Generous is better: what is cut off has no end token to be rewarded for.
    "response_length": 14,
    # 1.0 samples from the policy itself. Every log-probability of the run is taken at this temperature.
    "temperature": 1.0,
    # One log per rollout: figures of a rollout are the same for all of its steps.
    "logging_steps": 8,
    # A table of prompts, answers and scores at the start and in the middle: a mean hides what is read at a glance.
    "num_sample_generations": 2,
    "save_strategy": "no",
    "report_to": "none",
}


def main() -> None:
    parser = HfArgumentParser((Choices, PPOConfig))
    parser.set_defaults(**SETTINGS)
    choices, args = parser.parse_args_into_dataclasses()
    if choices.quick:
        args.max_steps, args.num_sample_generations = 16, 0

    # PPO does not teach to write. It starts from a model that writes something good now and then, and makes that more likely.
    name = choices.model or starting_policy(quick=choices.quick)
    reward = choices.reward or starting_reward_model(quick=choices.quick)
    splits = get_dataset(ScriptArguments(dataset_name=choices.data))
    held_out = splits["test"].select(range(min(len(splits["test"]), 24 if choices.quick else 200)))

    trainer = PPOTrainer(
        args=args,
        processing_class=AutoTokenizer.from_pretrained(name),
        model=AutoModelForCausalLM.from_pretrained(name, dtype="float32"),
        # Left out: ref_model, which then is the policy as it is now, kept frozen, and value_model, which then is a linear head on
        # the policy's own trunk that starts at 0. A critic of its own costs a model and its optimizer; it may start as the reward
        # model: value_model=reward.
        reward_model=reward,
        train_dataset=splits["train"],
        eval_dataset=held_out,
    )
    print(trainer.schedule)  # how many rollouts, steps and forward passes this makes

    def measure(when: str) -> None:
        """Four figures that have to be read together: any of the first two can be bought with the last two."""
        found = trainer.evaluate()  # always the same draws, so that two evaluations can be compared
        prompts = held_out["prompt"]
        texts = [
            p + a
            for p, a in zip(prompts, write(trainer.policy, trainer.processing_class, prompts), strict=True)
        ]
        praise = sum(judge.approves(texts)) / len(texts)
        print(
            f"{when}: score {found['eval_objective/scores']:.2f}, praise {praise:.1%} says a judge that was not trained on, "
            f"KL {found['eval_objective/kl']:.2f} nats per answer, distinct word pairs {distinct_bigrams(texts):.1%}"
        )
        print("\n".join(f"    {text}" for text in texts[:6]))

    judge = starting_judge(quick=choices.quick)
    measure("before")
    trainer.train()
    measure("after")

    # The policy as a stock model, its critic in critic/, metrics.jsonl beside them: `trellis report annotated-ppo` draws them.
    trainer.save_model()
    print(f"saved in {args.output_dir}")


if __name__ == "__main__":
    main()
