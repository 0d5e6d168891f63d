"""Each group loss, normaliser included, against its paper's objective as loops over numbers; then what they share."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trellis.losses.group import GRPO_LOSSES, PolicyStep, bind_group_loss, kl_term, sequence_clipped

KNOBS = {
    "epsilon": 0.2,
    "epsilon_high": 0.28,
    "delta": None,
    "importance_sampling_level": "token",
    "sapo_temperature_pos": 1.3,
    "sapo_temperature_neg": 1.7,
    "vespo_k_pos": 2.0,
    "vespo_lambda_pos": 3.0,
    "vespo_k_neg": 3.0,
    "vespo_lambda_neg": 2.0,
    "max_completion_length": 9,
}
CLIPPED = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo")
ALL = tuple(GRPO_LOSSES)


def knobs(name, **changes):
    """Knobs that `name` takes: cispo's epsilon_high is a weight, and only what clips has a delta."""
    own = {"epsilon_high": 1.3} if name == "cispo" else {}
    return {**KNOBS, **own, **changes}


def ratios(new, old, level):
    logs = [n - o for n, o in zip(new, old, strict=True)]
    if level == "sequence":
        return [torch.exp(sum(logs) / len(logs))] * len(logs)
    return [torch.exp(x) for x in logs]


def clip(r, a, k):
    bounded = min(max(r.item(), 1 - k["epsilon"]), 1 + k["epsilon_high"])
    inside = r if bounded == r.item() else 0 * r + bounded
    plain = r if k["delta"] is None or r.item() <= k["delta"] else 0 * r + k["delta"]
    return -plain * a if (plain * a).item() < (inside * a).item() else -inside * a


def soft(r, a, k):
    tau = k["sapo_temperature_pos"] if a > 0 else k["sapo_temperature_neg"]
    return -a * 4 / tau / (1 + torch.exp(-tau * (r - 1)))


def slow_tokens(name, new, old, a, k):
    """The loss of each token of one row."""
    level = "sequence" if name == "luspo" else k["importance_sampling_level"]
    r = ratios(new, old, level)
    if name in CLIPPED:
        return [clip(x, a, k) for x in r]
    if name == "cispo":
        return [-min(x.item(), k["epsilon_high"]) * a * n for x, n in zip(r, new, strict=True)]
    if name == "sapo":
        return [soft(x, a, k) for x in r]
    side = "pos" if a >= 0 else "neg"
    w = math.exp(sum(n.item() - o for n, o in zip(new, old, strict=True)))
    phi = w ** k[f"vespo_k_{side}"] * math.exp(k[f"vespo_lambda_{side}"] * (1 - w))
    return [-phi * a * n for n in new]


def slow(name, rows, k):
    """The objective of a batch that is one optimizer step and one rollout."""
    tokens = [slow_tokens(name, new, old, a, k) for new, old, a in rows]
    if name in ("grpo", "sapo"):
        return sum(sum(x) / len(x) for x in tokens) / len(rows)
    if name == "luspo":
        return sum(len(x) * x[0] for x in tokens) / len(rows)
    total = sum(sum(x) for x in tokens)
    if name == "dr_grpo":
        return total / (len(rows) * k["max_completion_length"])
    return total / sum(len(x) for x in tokens)


LENGTHS, STARTS, ADVANTAGES = (4, 1, 3, 5), (2, 1, 3, 1), (1.5, -0.7, -2.0, 0.9)


def batch(spread=0.5, *, seed=0, width=7, dtype=torch.float64, outside=0.0, per_token=False):
    """A PolicyStep of ragged rows with `outside` around them; log-probs of the old policy are up to `spread` away."""
    draw = torch.Generator().manual_seed(seed)
    shape = (len(LENGTHS), width)
    mask = torch.zeros(shape, dtype=torch.bool)
    logps, old = torch.full(shape, outside, dtype=dtype), torch.full(shape, outside, dtype=dtype)
    for i, (start, length) in enumerate(zip(STARTS, LENGTHS, strict=True)):
        mask[i, start : start + length] = True
        logps[i, mask[i]] = (-3 * torch.rand(length, generator=draw, dtype=torch.float64) - 0.1).to(dtype)
        away = spread * (2 * torch.rand(length, generator=draw, dtype=torch.float64) - 1)
        old[i, mask[i]] = logps[i, mask[i]] + away.to(dtype)
    advantages = torch.tensor(ADVANTAGES, dtype=dtype)
    if per_token:
        advantages = torch.where(mask, advantages[:, None], outside)
    return PolicyStep(logps.requires_grad_(True), old, advantages, mask)


def rows_of(step):
    """[(log-probs as leaves' entries, old ones, advantage)] of the trained tokens."""
    return [
        (list(step.logps[i][m]), step.old_logps[i][m].tolist(), float(step.row_advantages()[i]))
        for i, m in enumerate(step.mask)
    ]


def objective(name, step, k):
    """The step's sum over its own divisor, and the terms."""
    bound = bind_group_loss(name, k)
    terms = bound(step)
    return (terms.loss * bound.weights(step.mask)).sum() / bound.items(step.mask).sum(), terms


def test_every_loss_is_tested():
    ours = {n for n, filed in GRPO_LOSSES.items() if filed.function.__module__.startswith("trellis")}
    assert ours == {*CLIPPED, "cispo", "sapo", "vespo"}


CASES = [(n, level, delta) for n in ALL for level in ("token", "sequence") for delta in (None, 1.4)]
CASES = [(n, level, delta) for n, level, delta in CASES if delta is None or n in CLIPPED]


@pytest.mark.parametrize(("name", "level", "delta"), CASES)
@pytest.mark.parametrize("spread", [0.02, 0.6, 1.5])
def test_value_and_gradient_are_the_objective(name, level, delta, spread):
    k = knobs(name, importance_sampling_level=level, delta=delta)
    for seed in range(3):
        fast, plain = batch(spread, seed=seed), batch(spread, seed=seed)
        found, _ = objective(name, fast, k)
        want = slow(name, rows_of(plain), k)
        # Weights 1/|o_i| are float32.
        torch.testing.assert_close(found, want, rtol=1e-6, atol=1e-7)
        found.backward()
        want.backward()
        torch.testing.assert_close(fast.logps.grad, plain.logps.grad, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_what_stands_outside_the_mask_is_never_read(name, level):
    """NaN around the rows, more padding, advantages per token: same value, same gradient, zero at what is masked."""
    k = knobs(name, importance_sampling_level=level)
    narrow, wide = batch(), batch(width=11, outside=math.nan, per_token=True)
    losses = []
    for step in (narrow, wide):
        loss, terms = objective(name, step, k)
        loss.backward()
        losses.append(loss.detach())
        assert (step.logps.grad[~step.mask] == 0).all()
        for value in (terms.loss, terms.ratio, terms.low, terms.high, *terms.extra.values()):
            assert (value[~step.mask] == 0).all()
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(narrow.logps.grad[narrow.mask], wide.logps.grad[wide.mask])


@pytest.mark.parametrize("name", ALL)
def test_rows_do_not_see_each_other(name):
    """Any order and any cut into micro-batches gives each row the same terms."""
    step = batch()
    bound = bind_group_loss(name, knobs(name))
    together = bound(step)
    for picked in ([3, 1, 0, 2], [2], [0, 3]):
        part = bound(step.mapped(lambda x, i=picked: x[i]))
        torch.testing.assert_close(part.loss, together.loss[picked])
        torch.testing.assert_close(part.ratio, together.ratio[picked])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_where_the_policy_has_not_moved_the_gradient_is_the_policy_gradient(name, level):
    """Ratio 1, nothing clipped, and −A ∇log π times the token's weight: of every loss, at every level."""
    step = batch(0.0)
    bound = bind_group_loss(name, knobs(name, importance_sampling_level=level))
    terms = bound(step)
    (terms.loss * bound.weights(step.mask)).sum().backward()
    torch.testing.assert_close(
        step.logps.grad, (-step.token_advantages() * bound.weights(step.mask)).double()
    )
    assert (terms.ratio[step.mask] == 1).all()
    assert not terms.low.any()
    assert not terms.high.any()


@pytest.mark.parametrize("name", ALL)
def test_without_an_advantage_nothing_moves(name):
    step = batch(1.0)
    step.advantages = torch.zeros_like(step.advantages)
    loss, _ = objective(name, step, knobs(name))
    loss.backward()
    assert (step.logps.grad == 0).all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("shift", [-200.0, 200.0])
def test_finite_at_the_ends(name, level, shift):
    step = batch(dtype=torch.float32)
    step.old_logps = step.old_logps + shift * step.mask
    loss, terms = objective(name, step, knobs(name, importance_sampling_level=level))
    loss.backward()
    assert loss.dtype == torch.float32
    for value in (terms.loss, terms.ratio, step.logps.grad, *terms.extra.values()):
        assert bool(value.isfinite().all())


@pytest.mark.parametrize("name", ALL)
def test_a_row_without_a_trained_token_adds_nothing(name):
    step = batch()
    step.mask = step.mask & (torch.arange(4) != 1)[:, None]
    loss, terms = objective(name, step, knobs(name))
    loss.backward()
    assert bool(loss.isfinite())
    assert (terms.loss[1] == 0).all()
    assert (step.logps.grad[1] == 0).all()


def test_clips_are_told_by_side():
    """ρ = ½, ½, 2, 2 with A = −1, 1, −1, 1: the first is clipped below, the last above; δ bounds the third."""
    logs = torch.tensor([[0.5], [0.5], [2.0], [2.0]], dtype=torch.float64).log()
    mask, advantages = torch.ones(4, 1, dtype=torch.bool), torch.tensor([-1.0, 1, -1, 1]).double()
    step = PolicyStep(logs, torch.zeros_like(logs), advantages, mask)
    terms = bind_group_loss("grpo", knobs("grpo", delta=1.5))(step)
    assert terms.low.flatten().tolist() == [1, 0, 0, 0]
    assert terms.high.flatten().tolist() == [0, 0, 0, 1]
    torch.testing.assert_close(terms.loss.flatten(), torch.tensor([0.8, -0.5, 1.5, -1.28]).double())
    torch.testing.assert_close(terms.ratio, logs.exp())
    cispo = bind_group_loss("cispo", knobs("cispo"))(step)
    assert cispo.extra["cispo_clip"].flatten().tolist() == [0, 0, 0, 1]
    assert not cispo.high.any()


def test_epsilon_high_is_epsilon_where_none_is_given():
    one, other = (
        objective("dapo", batch(1.0), knobs("dapo", epsilon_high=e))[0].detach() for e in (None, 0.2)
    )
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_cispo_bounds_weights_at_five_where_nothing_is_said():
    step = PolicyStep(
        torch.tensor([[-1.0]]), torch.tensor([[-4.0]]), torch.ones(1), torch.ones(1, 1, dtype=torch.bool)
    )
    assert float(bind_group_loss("cispo", knobs("cispo", epsilon_high=None))(step).loss) == 5.0


def test_vespo_weights_the_whole_row():
    """φ is 1 at W = 1, greatest at W = k/λ, and W is a product: twice the tokens, twice the drift."""
    step = batch(0.3)
    phi = bind_group_loss("vespo", knobs("vespo"))(step).extra["phi"]
    drift = ((step.logps - step.old_logps) * step.mask).sum(1)
    for i, advantage in enumerate(ADVANTAGES):
        k, rate = (2.0, 3.0) if advantage >= 0 else (3.0, 2.0)
        w = math.exp(drift[i].item())
        want = w**k * math.exp(rate * (1 - w))
        torch.testing.assert_close(phi[i][step.mask[i]], torch.full((LENGTHS[i],), want).double())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), spread=st.floats(0, 2), high=st.sampled_from([None, 0.2, 0.5]))
def test_sequence_clipped_is_the_loop(seed, spread, high):
    step, plain = batch(spread, seed=seed), batch(spread, seed=seed)
    loss, ratio, low, clipped_above = sequence_clipped(step, epsilon=0.2, epsilon_high=high)
    above = 0.2 if high is None else high
    k = {"epsilon": 0.2, "epsilon_high": above, "delta": None}
    want = []
    for i, (new, old, a) in enumerate(rows_of(plain)):
        rho = torch.exp(sum(new) - sum(old))
        want.append(clip(rho, a, k))
        assert ratio[i].item() == pytest.approx(rho.item())
        assert float(low[i]) == (rho.item() < 0.8 and a < 0)
        assert float(clipped_above[i]) == (rho.item() > 1 + above and a > 0)
    torch.testing.assert_close(loss, torch.stack(want))
    loss.sum().backward()
    torch.stack(want).sum().backward()
    torch.testing.assert_close(step.logps.grad, plain.logps.grad)


def test_sequence_clipped_stays_finite_and_leaves_the_rest_alone():
    step = batch(dtype=torch.float32, outside=math.nan)
    step.old_logps = step.old_logps - 100
    loss, ratio, _, _ = sequence_clipped(step, epsilon=0.2)
    loss.sum().backward()
    assert bool(loss.isfinite().all() & ratio.isfinite().all() & step.logps.grad.isfinite().all())
    assert (step.logps.grad[~step.mask] == 0).all()


def test_kl_corrected_for_its_sampler_is_the_kl_gradient_included():
    """Σ_x π_old(x) ρ(x) k3(x) is KL(π ‖ π_ref), exactly, over a vocabulary; without the ratio it is not."""
    torch.manual_seed(1)
    logits = torch.randn(7, dtype=torch.float64, requires_grad=True)
    old, ref = torch.randn(2, 7, dtype=torch.float64).log_softmax(-1)
    logps = logits.log_softmax(-1)
    exact = (logps.exp() * (logps - ref)).sum()
    found = (old.exp() * kl_term(logps, ref, (logps - old).exp())).sum()
    torch.testing.assert_close(found, exact)
    grads = [torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (found, exact)]
    torch.testing.assert_close(*grads)
    plain = (old.exp() * kl_term(logps, ref)).sum()
    assert not torch.allclose(plain, exact, rtol=1e-2)
    torch.testing.assert_close(kl_term(logps, ref), torch.exp(ref - logps) - 1 - (ref - logps))


def test_kl_stays_finite_at_the_ends():
    logps = torch.tensor([-200.0, 0.0], requires_grad=True)
    kl = kl_term(logps, torch.tensor([0.0, -200.0]))
    kl.sum().backward()
    assert bool((kl.isfinite() & logps.grad.isfinite()).all())
