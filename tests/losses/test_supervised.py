"""Per-token losses of supervised fine-tuning against their formulas."""

import pytest
import torch

from trellis.losses.supervised import SUPERVISED_LOSSES, dft, get_supervised_loss, nll

LOGPS = torch.tensor([[0.0, -0.5, -2.0], [-0.1, -8.0, -60.0]], dtype=torch.float64)


@pytest.mark.parametrize("name", sorted(SUPERVISED_LOSSES))
def test_a_loss_is_per_token_finite_and_falls_with_the_log_probability(name):
    logps = LOGPS.clone().requires_grad_()
    loss = get_supervised_loss(name)(logps)
    loss.sum().backward()
    assert loss.shape == LOGPS.shape
    assert torch.isfinite(loss).all()
    assert (loss >= 0).all()
    assert (logps.grad < 0).all()


def test_values():
    torch.testing.assert_close(nll(LOGPS), -LOGPS)
    torch.testing.assert_close(dft(LOGPS), -LOGPS.exp() * LOGPS)


def test_the_weight_of_dft_is_held_constant():
    logps = LOGPS.clone().requires_grad_()
    dft(logps).sum().backward()
    torch.testing.assert_close(logps.grad, -LOGPS.exp())


def test_the_gradients_in_the_logits():
    logits = torch.tensor([1.0, -0.5, 0.25, 3.0], dtype=torch.float64, requires_grad=True)
    p, written = logits.detach().softmax(0), torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    for loss, weight in ((nll, 1.0), (dft, p[2])):
        (found,) = torch.autograd.grad(loss(logits.log_softmax(0)[2]), logits)
        torch.testing.assert_close(found, weight * (p - written))


def test_an_unknown_name_lists_the_choices():
    with pytest.raises(ValueError, match=r"loss_type='nnl' is not known; expected one of \['dft', 'nll'\]"):
        get_supervised_loss("nnl")
