"""What the pieces of PPO, RLOO and GRPO amount to in expectation, exact over every answer of a small vocabulary."""

import itertools
import math

import pytest
import torch

from trellis.advantages import gae, group_normalized, leave_one_out, place_score
from trellis.losses.group import PolicyStep, bind_group_loss, kl_term, sequence_clipped
from trellis.losses.policy import clipped_surrogate, k1, k3

WORDS = 3
ANSWERS = list(itertools.product(range(WORDS), repeat=2))
MASK = torch.tensor([[False, True, True]] * len(ANSWERS))
BETA = 0.4


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def logps_of(logits):
    """[9, 3]: of the answers' two words, after a prompt of one token; `logits` [12]: of the first, of the second after each."""
    first, second = logits[:WORDS].log_softmax(0), logits[WORDS:].view(WORDS, WORDS).log_softmax(1)
    return torch.stack([torch.stack([0 * first[a], first[a], second[a, b]]) for a, b in ANSWERS])


def logits_of(logps):
    """The inverse of `logps_of`, from log-probabilities of whole answers [9]."""
    joint = logps.view(WORDS, WORDS)
    return torch.cat([joint.logsumexp(1), joint.flatten()])


POLICY, REF, SCORES = drawn(12, seed=1), logps_of(drawn(12, seed=2)), drawn(9, seed=3)


def objective(logits, beta=BETA):
    """E[score] − β KL(π ‖ π_ref)."""
    logps = logps_of(logits).sum(1)
    return (logps.exp() * (SCORES - beta * (logps - REF.sum(1)))).sum()


def ascent(loss, weights, logits):
    """The direction in which descent on Σ weights · loss moves the logits."""
    return -torch.autograd.grad((weights * loss).sum(), logits)[0]


def ppo_direction(logits, values):
    """What PPO's surrogate says, before the first update, in expectation over answers."""
    logits = logits.clone().requires_grad_()
    logps = logps_of(logits)
    old = logps.detach()
    rewards = place_score(SCORES, MASK) - BETA * k1(old, REF) * MASK
    advantages, _ = gae(rewards, values, MASK, gamma=1.0, lam=1.0)
    loss, _, _ = clipped_surrogate(logps, old, advantages, cliprange=0.2)
    return ascent(loss * MASK, old.sum(1).exp()[:, None], logits)


def gradient(f, logits):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(f(logits), logits)[0]


@pytest.mark.parametrize("critic", ["none", "any"])
def test_ppo_climbs_the_regularised_objective(critic):
    """With γ = λ = 1, whatever the critic says of the state in which a word is chosen."""
    values = torch.zeros(9, 3, dtype=torch.float64)
    if critic == "any":
        values[:, 1] = 0.7
        values[:, 2] = drawn(WORDS, seed=4)[[a for a, _ in ANSWERS]]
    torch.testing.assert_close(ppo_direction(POLICY, values), gradient(objective, POLICY))


def test_the_optimum_is_the_reference_weighted_by_exp_of_the_score():
    """π* = π_ref exp(score/β)/Z, J(π) = β log Z − β KL(π ‖ π*), and at π* PPO does not move."""
    best = REF.sum(1) + SCORES / BETA
    log_z = best.logsumexp(0)
    best = best - log_z
    at_best = logits_of(best)
    torch.testing.assert_close(logps_of(at_best).sum(1), best)
    torch.testing.assert_close(objective(at_best), BETA * log_z)
    found = logps_of(POLICY).sum(1)
    kl = (found.exp() * (found - best)).sum()
    torch.testing.assert_close(objective(POLICY), BETA * log_z - BETA * kl)
    still = ppo_direction(at_best, torch.zeros(9, 3, dtype=torch.float64))
    torch.testing.assert_close(still, torch.zeros_like(still))


def one_word(distance, seed=5):
    """(logits, log-probabilities of a reference) of one word, `distance` apart."""
    ref = drawn(7, seed=seed)
    return ref + distance * drawn(7, seed=seed + 1), ref.log_softmax(0)


def reverse(logits, ref):
    p = logits.log_softmax(0)
    return (p.exp() * (p - ref)).sum()


def forward(logits, ref):
    return (ref.exp() * (ref - logits.log_softmax(0))).sum()


@pytest.mark.parametrize("distance", [0.01, 0.1, 1.0])
def test_as_a_reward_k1_pulls_by_the_kl_and_k3_by_a_difference_of_two(distance):
    """A penalty in the reward is a number: its own gradient is not taken. For k1 that gradient is 0 in expectation; for k3 it
    is that of KL(π_ref ‖ π), which is missing, so that next to the reference hardly anything pulls."""
    logits, ref = one_word(distance)
    pulls = {}
    for estimator in (k1, k3):
        moving = logits.clone().requires_grad_()
        p = moving.log_softmax(0)
        pulls[estimator] = ascent(p * estimator(p, ref).detach(), p.detach().exp(), moving)
    down = -gradient(lambda x: reverse(x, ref), logits)
    torch.testing.assert_close(pulls[k1], down)
    torch.testing.assert_close(pulls[k3], down + gradient(lambda x: forward(x, ref), logits))
    if distance == 0.01:
        assert pulls[k3].norm() < 0.02 * pulls[k1].norm()


@pytest.mark.parametrize("distance", [0.1, 1.0])
def test_in_the_loss_k3_pulls_by_the_other_kl_and_with_the_ratio_by_its_own(distance):
    """On the policy's own samples: ∇KL(π_ref ‖ π) without the ratio, ∇KL(π ‖ π_ref) with it."""
    logits, ref = one_word(distance)
    for corrected, exact in ((False, forward), (True, reverse)):
        moving = logits.clone().requires_grad_()
        p = moving.log_softmax(0)
        ratio = (p - p.detach()).exp() if corrected else None
        found = -ascent(kl_term(p, ref, ratio), p.detach().exp(), moving)
        torch.testing.assert_close(found, gradient(lambda x, of=exact: of(x, ref), logits))


def test_k3_varies_less_near_the_reference_and_can_vary_more_far_from_it():
    """Both have the same mean; the variance is exact over the vocabulary."""

    def variance(distance, estimator):
        logits, ref = one_word(distance)
        p = logits.log_softmax(0)
        mean = (p.exp() * estimator(p, ref)).sum()
        return float((p.exp() * (estimator(p, ref) - mean) ** 2).sum())

    assert variance(0.1, k3) < 0.02 * variance(0.1, k1)
    assert variance(4.0, k3) > variance(4.0, k1)


def groups(samples):
    """(answers [K·samples] of every possible group, their group numbers, each group's probability under POLICY per row)."""
    rows = torch.tensor(list(itertools.product(range(len(ANSWERS)), repeat=samples)))
    logps = logps_of(POLICY).sum(1)[rows].sum(1)
    number = torch.arange(len(rows)).repeat_interleave(samples)
    return rows.flatten(), number, logps.exp().repeat_interleave(samples)


def group_direction(samples, advantages_of):
    """What the loss of whole answers says, before the first update, in expectation over groups."""
    rows, number, weights = groups(samples)
    logits = POLICY.clone().requires_grad_()
    logps = logps_of(logits)[rows]
    old = logps.detach()
    rewards = SCORES[rows] - BETA * (old - REF[rows]).sum(1)
    step = PolicyStep(logps, old, advantages_of(rewards, number), MASK[rows])
    loss = sequence_clipped(step, epsilon=0.2)[0]
    return ascent(loss, weights / samples, logits)


@pytest.mark.parametrize("samples", [2, 3])
def test_leave_one_out_is_unbiased(samples):
    """E over all groups of answers is the gradient of the regularised objective: RLOO's, with its KL in the reward."""
    torch.testing.assert_close(group_direction(samples, leave_one_out), gradient(objective, POLICY))


@pytest.mark.parametrize("samples", [2, 3])
def test_a_mean_that_holds_the_answer_itself_shortens_the_gradient(samples):
    """By (G − 1)/G, in the same direction."""
    found = group_direction(samples, lambda r, g: group_normalized(r, g, scale="none"))
    torch.testing.assert_close(found, gradient(objective, POLICY) * (samples - 1) / samples)


@pytest.mark.parametrize("samples", [2, 4, 8])
@pytest.mark.parametrize("p", [0.05, 0.3, 0.5])
def test_the_deviation_of_the_group_weighs_prompts_by_their_difficulty(samples, p):
    """A reward of 0 or 1, earned with probability p = σ(θ): the direction along θ is E[√(m(G − m)(G − 1)/G)]/G over the number m
    of right answers, where without a divisor it is p(1 − p)(G − 1)/G."""
    found = {"group": 0.0, "none": 0.0}
    for right in range(samples + 1):
        chance = math.comb(samples, right) * p**right * (1 - p) ** (samples - right)
        rewards = torch.tensor([1.0] * right + [0.0] * (samples - right), dtype=torch.float64)
        score = rewards - p  # ∂ log π/∂θ
        for scale in found:
            advantages = group_normalized(rewards, torch.zeros(samples, dtype=torch.long), scale=scale)
            found[scale] += chance * float((advantages * score).sum()) / samples
    expected = sum(
        math.comb(samples, m) * p**m * (1 - p) ** (samples - m)
        * math.sqrt(m * (samples - m) * (samples - 1) / samples) / samples
        for m in range(samples + 1)
    )  # fmt: skip
    assert found["none"] == pytest.approx(p * (1 - p) * (samples - 1) / samples)
    assert found["group"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["grpo", "dapo", "dr_grpo"])
def test_which_answers_weigh_more(name):
    """Two answers of 1 and 4 tokens with the same advantage: of the gradient on a token, `grpo` gives the short one four times
    as much, the others the same."""
    fields = {
        "epsilon": 0.2, "epsilon_high": None, "delta": None, "importance_sampling_level": "token", "max_completion_length": 9
    }  # fmt: skip
    mask = torch.tensor([[False, True, False, False, False], [False, True, True, True, True]])
    logps = torch.full(mask.shape, -1.0, dtype=torch.float64, requires_grad=True)
    bound = bind_group_loss(name, fields)
    terms = bound(PolicyStep(logps, logps.detach(), torch.ones(2, dtype=torch.float64), mask))
    (terms.loss * bound.weights(mask)).sum().backward()
    assert float(logps.grad[0, 1] / logps.grad[1, 1]) == (4.0 if name == "grpo" else 1.0)
