"""GRPOTrainer against the plain loop of examples/bare_grpo.py: the same weights after several rollouts."""

import copy
from dataclasses import fields

import pytest
import torch

from examples.bare_grpo import Settings, main, train
from tests.builders import tiny_model, tiny_tokenizer
from tests.trainers.group_runs import TEXTS, build, letters, stops_often
from trellis.rollout import SamplingParams, stop_ids
from trellis.trainers.seeds import derived_seed

SETTINGS = {
    "per_device_train_batch_size": 2,  # micro-batches cut through the groups
    "gradient_accumulation_steps": 3,
    "generation_batch_size": 12,
    "num_generations": 3,
    "num_iterations": 2,
    "max_completion_length": 6,
    "max_steps": 12,
    "beta": 0.3,
    "epsilon": 0.1,
    "temperature": 0.8,
    "max_grad_norm": 0.5,
    "seed": 5,
}
ROUNDING = 5e-5
"""Steps are of 1e-2, whatever a gradient's size: where it is nearly 0, so is what Adam divides it by."""


def bare(model, args):
    """The policy that the plain loop makes of a copy, and the (batch, rewards) of its rollouts."""
    policy, tokenizer = copy.deepcopy(model), tiny_tokenizer()
    shared = {f.name: getattr(args, f.name) for f in fields(Settings) if hasattr(args, f.name)}
    prompts = args.generation_batch_size // args.num_generations
    settings = Settings(**shared, rollouts=3, prompts=prompts, minibatches=2)
    sampling = SamplingParams(
        max_new_tokens=args.max_completion_length,
        temperature=args.temperature,
        stop_ids=stop_ids(tokenizer, model.generation_config),
    )

    def judge(completions):
        return letters([tokenizer.decode(c.ids, skip_special_tokens=True) for c in completions])

    texts = [tokenizer(text)["input_ids"] for text in TEXTS]
    return policy, list(train(policy, texts, judge, sampling, settings, seed_of=derived_seed))


@pytest.mark.parametrize(
    "options",
    [
        {"loss_type": "dapo"},
        {"loss_type": "bnpo", "scale_rewards": "batch", "delta": 1.5},
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.01},
        {"loss_type": "dr_grpo", "scale_rewards": "none", "epsilon_high": 0.3},
    ],
    ids=lambda options: options["loss_type"],
)
def test_the_trainer_is_the_plain_loop(tmp_path, options):
    """Two minibatches per rollout, each trained on twice; several micro-batches in the trainer, none in the loop."""
    model = stops_often(tiny_model("llama", seed=1), 0.15).double()
    trainer = build("GRPO", tmp_path, parts={"model": copy.deepcopy(model)}, **{**SETTINGS, **options})
    policy, rollouts = bare(model, trainer.args)
    trainer.train()
    assert trainer.state.global_step == len(rollouts) * 2 * 2
    assert trainer.policy.dtype == torch.float64
    batch, rewards = rollouts[-1]
    assert batch.input_ids.equal(trainer.rollout.input_ids)
    assert rewards.equal(trainer.rollout.scores)
    start = dict(model.named_parameters())
    for (name, expected), found in zip(policy.named_parameters(), trainer.policy.parameters(), strict=True):
        assert not found.equal(start[name]), f"{name} was not trained"
        torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING, msg=lambda m, n=name: f"{n}: {m}")


def test_the_plain_loop_learns():
    means = main(["--rollouts", "7"])
    assert means[-1] > means[0] + 0.2
