"""Every metric that PPO documents is logged, and equals what a plain computation over each response says."""

import math

import pytest
import torch

from tests.builders import tiny_model
from tests.trainers.ppo_runs import logged, stops_often, trainer_of
from trellis.trainers.ppo_metrics import LOOP, MINIBATCH, ROLLOUT

DOCUMENTED = {
    *("eps", "episode", "lr", "objective/kl", "objective/entropy", "objective/non_score_reward"),
    *(
        "objective/rlhf_reward",
        "objective/scores",
        "policy/approxkl_avg",
        "policy/clipfrac_avg",
        "loss/policy_avg",
    ),
    *(
        "loss/value_avg",
        "val/clipfrac_avg",
        "policy/entropy_avg",
        "val/ratio",
        "val/ratio_var",
        "val/num_eos_tokens",
    ),
}


def plain_run(folder):
    """One rollout of responses of many lengths, two epochs of one minibatch, a reference other than the policy."""
    model = stops_often(tiny_model("llama"), 0.15)
    trainer = trainer_of(
        folder,
        parts={"model": model, "ref_model": tiny_model("llama", seed=7)},
        total_episodes=4,
        kl_coef=0.3,
        missing_eos_penalty=0.5,
        reward_scale=2.0,
        vf_coef=0.7,
        gamma=0.9,
        optim="sgd",
        learning_rate=0.3,
        cliprange=0.01,
        cliprange_value=0.01,
    )
    before = {name: p.detach().clone() for name, p in trainer.actor_critic.named_parameters()}
    trainer.train()
    return trainer, before


def responses(rollout, x):
    """Each response's own numbers, as lists."""
    return [row[mask].tolist() for row, mask in zip(x, rollout.loss_mask, strict=True)]


def mean(values):
    values = list(values)
    return math.fsum(values) / len(values)


def variance(values):
    return mean(v * v for v in values) - mean(values) ** 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.manual_seed(0)
    return plain_run(tmp_path_factory.mktemp("metrics"))


def test_every_documented_name_is_logged(run):
    trainer, _ = run
    names = set(trainer.state.log_history[0])
    declared = {m.name for m in (*MINIBATCH, *ROLLOUT, *LOOP) if not m.hidden}
    assert DOCUMENTED <= declared <= names
    assert {"grad_norm", "learning_rate", "rewards/letters/mean", "rewards/letters/std"} <= names
    assert not {m.name for m in (*MINIBATCH, *ROLLOUT) if m.hidden} & names


def test_what_a_rollout_logs(run):
    trainer, _ = run
    rollout = trainer.rollout
    old, ref = responses(rollout, rollout.old_logps), responses(rollout, rollout.ref_logps)
    kl = [math.fsum(a - b for a, b in zip(x, y, strict=True)) for x, y in zip(old, ref, strict=True)]
    k3 = [
        math.fsum(math.expm1(b - a) - (b - a) for a, b in zip(x, y, strict=True))
        for x, y in zip(old, ref, strict=True)
    ]
    scores = rollout.scores.tolist()
    values, returns = (
        sum(responses(rollout, rollout.values), []),
        sum(responses(rollout, rollout.returns), []),
    )
    expected = {
        "objective/kl": mean(kl),
        "objective/kl_k3": mean(k3),
        "objective/kl_coef": 0.3,
        "objective/entropy": mean(-math.fsum(x) for x in old),
        "objective/non_score_reward": -0.3 * mean(kl),
        "objective/scores": mean(scores),
        "objective/scores_std": variance(scores) ** 0.5,
        "objective/rlhf_reward": mean(scores) - 0.3 * mean(kl),
        "val/num_eos_tokens": float(rollout.finished.sum()),
        "val/return": mean(returns),
        "val/explained_variance": 1
        - variance([r - v for r, v in zip(returns, values, strict=True)]) / variance(returns),
        "response/length": mean(map(len, old)),
        "response/truncated": 1 - mean(rollout.finished.float().tolist()),
        "episode": 4,
        "lr": 0.3,
    }
    entry = trainer.state.log_history[0]
    assert {name: entry[name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert len(set(map(len, old))) > 1
    assert 0 < rollout.finished.sum() < 4
    assert {m.name for m in ROLLOUT if not m.hidden} <= set(expected)


def test_what_a_step_logs(run):
    """The second step, at the weights after the first: repeated by hand from the trainer's own start."""
    trainer, before = run
    rollout = trainer.rollout
    for name, p in trainer.actor_critic.named_parameters():
        p.data.copy_(before[name])
    ac, optimizer = trainer.actor_critic, torch.optim.SGD(trainer.actor_critic.parameters(), lr=0.3)
    out = trainer.loss(ac, rollout)
    (out.total / rollout.loss_mask.sum()).backward()
    norm = torch.nn.utils.clip_grad_norm_(ac.parameters(), 1.0)
    assert logged(trainer, "grad_norm")[0] == pytest.approx(float(norm), rel=1e-4)
    optimizer.step()
    optimizer.zero_grad()
    with torch.no_grad():
        new = trainer.evaluate_tokens(ac, rollout, entropy=True)
    flat = {name: sum(responses(rollout, x), []) for name, x in {**new, "old": rollout.old_logps}.items()}
    ratios = [math.exp(a - b) for a, b in zip(flat["logps"], flat["old"], strict=True)]
    advantages = sum(responses(rollout, rollout.advantages), [])
    surrogate, clipped = [], []
    for ratio, advantage in zip(ratios, advantages, strict=True):
        bounded = min(max(ratio, 0.99), 1.01)
        surrogate.append(max(-ratio * advantage, -bounded * advantage))
        clipped.append(float(-bounded * advantage > -ratio * advantage))
    errors, limited = [], []
    olds, targets = (sum(responses(rollout, x), []) for x in (rollout.values, rollout.returns))
    for value, old, target in zip(flat["values"], olds, targets, strict=True):
        bounded = min(max(value, old - 0.01), old + 0.01)
        errors.append(0.5 * max((value - target) ** 2, (bounded - target) ** 2))
        limited.append(float((bounded - target) ** 2 > (value - target) ** 2))
    expected = {
        "policy/approxkl_avg": 0.5
        * mean((a - b) ** 2 for a, b in zip(flat["logps"], flat["old"], strict=True)),
        "policy/clipfrac_avg": mean(clipped),
        "policy/entropy_avg": mean(flat["entropy"]),
        "loss/policy_avg": mean(surrogate),
        "loss/value_avg": mean(errors),
        "val/clipfrac_avg": mean(limited),
        "val/ratio": mean(ratios),
        "val/ratio_var": variance(ratios),
        "loss": mean(surrogate) + 0.7 * mean(errors),
    }
    entry = trainer.state.log_history[1]
    assert {name: entry[name] for name in expected} == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert expected["policy/clipfrac_avg"] > 0
    assert expected["val/clipfrac_avg"] > 0
    assert {m.name for m in MINIBATCH if not m.hidden} <= set(expected)
