"""PPOTrainer against the plain loop of examples/bare_ppo.py: the same weights after several rollouts."""

import copy

import pytest
import torch

from examples.bare_ppo import Settings, main, train
from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer
from tests.trainers.ppo_runs import TEXTS, config, letters
from trellis import PPOTrainer
from trellis.models import ActorCritic
from trellis.rollout import SamplingParams, stop_ids
from trellis.trainers.seeds import derived_seed


def bare(model, value_model, args):
    """The policy and critic that the plain loop makes of copies of these."""
    tokenizer = tiny_tokenizer()
    ac = ActorCritic(copy.deepcopy(model), copy.deepcopy(value_model)).double()
    settings = Settings(
        rollouts=3,
        batch=args.per_device_train_batch_size * args.gradient_accumulation_steps,
        epochs=args.num_ppo_epochs,
        minibatches=args.num_mini_batches,
        learning_rate=args.learning_rate,
        kl_coef=args.kl_coef,
        kl_estimator=args.kl_estimator,
        gamma=args.gamma,
        lam=args.lam,
        cliprange=args.cliprange,
        cliprange_value=args.cliprange_value,
        vf_coef=args.vf_coef,
        max_grad_norm=args.max_grad_norm,
        seed=args.seed,
    )
    sampling = SamplingParams(
        max_new_tokens=args.response_length,
        temperature=args.temperature,
        stop_ids=stop_ids(tokenizer, model.generation_config),
    )

    def judge(rows, completions):
        return letters([tokenizer.decode(c.ids, skip_special_tokens=True) for c in completions])

    prompts = [tokenizer(text)["input_ids"] for text in TEXTS]
    rollouts = list(train(ac, prompts, judge, sampling, settings, seed_of=derived_seed))
    return ac, rollouts


@pytest.mark.parametrize(
    ("critic", "kl_estimator", "micro", "accumulation", "minibatches"),
    [
        ("head on the trunk", "k1", 1, 8, 2),
        ("own model", "k3", 1, 8, 2),
        ("head on the trunk", "k3", 3, 4, 3),  # a minibatch of 4 rows in micro-batches of 3 and 1
        ("own model", "k1", 4, 2, 1),
    ],
)
def test_the_trainer_is_the_plain_loop(tmp_path, critic, kl_estimator, micro, accumulation, minibatches):
    """Several micro-batches per step in the trainer, none in the loop: the same rollouts, the same weights."""
    model = tiny_model("llama", seed=1).double()
    value_model = tiny_classifier("llama", seed=2).double() if critic == "own model" else None
    args = config(
        tmp_path,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        num_mini_batches=minibatches,
        num_ppo_epochs=3,
        kl_estimator=kl_estimator,
        kl_coef=0.3,
        temperature=0.8,
        gamma=0.97,
        lam=0.9,
        vf_coef=0.5,
        cliprange=0.1,
        max_grad_norm=0.5,
        total_episodes=3 * micro * accumulation,
        seed=5,
    )
    ac, rollouts = bare(model, value_model, args)
    trainer = PPOTrainer(
        args=args,
        model=model,
        value_model=value_model,
        processing_class=tiny_tokenizer(),
        reward_funcs=letters,
        train_dataset=TEXTS,
    )
    trainer.actor_critic.double()
    start = {name: p.detach().clone() for name, p in trainer.actor_critic.named_parameters()}
    trainer.train()
    assert trainer.state.global_step == 3 * 3 * args.num_mini_batches
    assert rollouts[-1].input_ids.equal(trainer.rollout.input_ids)
    for (name, expected), found in zip(ac.named_parameters(), trainer.actor_critic.parameters(), strict=True):
        assert not found.equal(start[name]), f"{name} was not trained"
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_the_plain_loop_learns():
    means = main(["--rollouts", "5"])  # of the sixth it depends on rounding how far it falls back
    assert means[-1] > means[0] + 0.1
