"""The head without whole logits: its values by the formulas, its backward by finite differences."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trellis.scoring.head import Transform, head_scores
from trellis.scoring.tiles import FEW_WORDS, TILE_ELEMENTS, Tiles, slices

TRANSFORMS = [
    Transform(),
    Transform(temperature=0.7),
    Transform(scale=0.25, softcap=2.0, temperature=0.5),
    Transform(scale=3.0, softcap=1.5),
]


class Wrapped(nn.Module):
    """A head that is no nn.Linear, as an adapted or quantised one."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear, self.out_features = linear, linear.out_features

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def parts(
    bias: bool, positions: int = 5, vocab: int = 11, hidden: int = 4
) -> tuple[nn.Linear, Tensor, Tensor]:
    head = nn.Linear(hidden, vocab, bias=bias).double()
    return (
        head,
        torch.randn(positions, hidden, dtype=torch.float64, requires_grad=True),
        torch.randint(0, vocab, (positions,)),
    )


def textbook(head: nn.Module, hidden: Tensor, targets: Tensor, transform: Transform) -> tuple[Tensor, ...]:
    z = head(hidden) * transform.scale
    if transform.softcap is not None:
        z = transform.softcap * torch.tanh(z / transform.softcap)
    p = (z / transform.temperature).log_softmax(-1)
    return p.gather(-1, targets[:, None]).squeeze(-1), -(p.exp() * p).sum(-1), p.argmax(-1) == targets


@pytest.mark.parametrize(("transform", "bias"), list(product(TRANSFORMS, [False, True])))
@pytest.mark.parametrize("wrap", [False, True])
def test_values_are_the_formulas(transform: Transform, bias: bool, wrap: bool) -> None:
    head, hidden, targets = parts(bias)
    logps, entropy, hits = textbook(head, hidden, targets, transform)
    found = head_scores(Wrapped(head) if wrap else head, hidden, targets, transform, entropy=True, hits=True)
    torch.testing.assert_close(found["logps"], logps)
    torch.testing.assert_close(found["entropy"], entropy)
    assert torch.equal(found["hits"], hits.double())
    assert set(head_scores(head, hidden, targets, transform)) == {"logps"}


@pytest.mark.parametrize(("transform", "bias"), list(product(TRANSFORMS, [False, True])))
@pytest.mark.parametrize("frozen", [False, True])
def test_backward_is_the_difference_quotient(transform: Transform, bias: bool, frozen: bool) -> None:
    head, hidden, targets = parts(bias)
    head.requires_grad_(not frozen)

    def both(h: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        found = head_scores(head, h, targets, transform, entropy=True, hits=True)
        return found["logps"], found["entropy"]

    inputs = (hidden,) if frozen else (hidden, *head.parameters())
    assert torch.autograd.gradcheck(both, inputs)
    assert torch.autograd.gradcheck(lambda *x: both(*x)[0], inputs)
    assert torch.autograd.gradcheck(lambda *x: both(*x)[1], inputs)


def test_a_frozen_head_gets_no_gradient_and_gives_the_same() -> None:
    head, hidden, targets = parts(bias=True)
    weights = torch.randn(5, dtype=torch.float64)

    def of_hidden() -> Any:
        logps = head_scores(head, hidden, targets, TRANSFORMS[2], entropy=True)["logps"]
        return torch.autograd.grad((logps * weights).sum(), hidden)[0]

    want = of_hidden()
    head.requires_grad_(False)
    torch.testing.assert_close(of_hidden(), want)
    assert head.weight.grad is None
    assert head.bias.grad is None


def test_one_parameter_alone_may_learn() -> None:
    head, hidden, targets = parts(bias=True)
    logps, _, _ = textbook(head, hidden, targets, TRANSFORMS[1])
    want = torch.autograd.grad(logps.sum(), head.bias)[0]
    head.weight.requires_grad_(False)
    head_scores(head, hidden.detach(), targets, TRANSFORMS[1])["logps"].sum().backward()
    torch.testing.assert_close(head.bias.grad, want)
    assert head.weight.grad is None


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize(
    ("vocab", "positions"), [(1 << 15, 600), (2_500, TILE_ELEMENTS["cpu"] // FEW_WORDS + 7)]
)
def test_many_tiles_are_one(wrap: bool, vocab: int, positions: int) -> None:
    cut = Tiles.of(positions, vocab, torch.device("cpu"))
    assert len(cut.words) > 1
    assert len(cut.rows) == (2 if vocab < 1 << 15 else 1)
    head, hidden, targets = parts(bias=True, positions=positions, vocab=vocab)
    found = head_scores(Wrapped(head) if wrap else head, hidden, targets, TRANSFORMS[2], entropy=True)
    weights = torch.randn(2, positions, dtype=torch.float64)
    inputs = [hidden, head.weight, head.bias]
    got = torch.autograd.grad((found["logps"] * weights[0] + found["entropy"] * weights[1]).sum(), inputs)
    logps, entropy, _ = textbook(head, hidden, targets, TRANSFORMS[2])
    want = torch.autograd.grad((logps * weights[0] + entropy * weights[1]).sum(), inputs)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("wrap", [False, True])
def test_impossible_tokens_weigh_nothing(wrap: bool) -> None:
    head, hidden, targets = parts(bias=True)
    targets[:] = 3
    short = nn.Linear(4, 9).double()
    with torch.no_grad():
        head.bias[9:] = -torch.inf  # a vocabulary padded to a round size
        short.weight.copy_(head.weight[:9])
        short.bias.copy_(head.bias[:9])
    want = head_scores(short, hidden, targets, Transform(), entropy=True)
    found = head_scores(Wrapped(head) if wrap else head, hidden, targets, Transform(), entropy=True)
    for name in ("logps", "entropy"):
        torch.testing.assert_close(found[name], want[name])
        got = torch.autograd.grad(found[name].sum(), hidden, retain_graph=True)[0]
        torch.testing.assert_close(got, torch.autograd.grad(want[name].sum(), hidden, retain_graph=True)[0])


def test_large_logits_do_not_overflow() -> None:
    head, hidden, targets = parts(bias=False)
    found = head_scores(head.float(), hidden.float() * 1e4, targets, Transform(), entropy=True)
    assert all(bool(x.isfinite().all()) for x in found.values())
    assert float(found["logps"].detach().min()) < -1e3


def test_nothing_asked_nothing_made() -> None:
    head, hidden, targets = parts(bias=True)
    found = head_scores(head, hidden[:0], targets[:0], Transform(), entropy=True, hits=True)
    assert {name: tuple(x.shape) for name, x in found.items()} == {
        "logps": (0,),
        "entropy": (0,),
        "hits": (0,),
    }


def test_slices_cover_all_and_are_alike() -> None:
    assert [range(100)[s] for s in slices(100, 33)] == [
        range(0, 25),
        range(25, 50),
        range(50, 75),
        range(75, 100),
    ]
    assert [(s.start, s.stop) for s in slices(0, 5)] == [(0, 0)]


@pytest.mark.parametrize("nothing", [float("-inf"), torch.finfo(torch.float32).min])
def test_a_tile_in_which_nothing_is_possible_weighs_nothing(nothing: float) -> None:
    positions, tile = TILE_ELEMENTS["cpu"] // FEW_WORDS, FEW_WORDS
    head, hidden = nn.Linear(4, 3 * tile), torch.randn(positions, 4)
    targets = torch.randint(tile, 2 * tile, (positions,))
    with torch.no_grad():
        head.bias[:tile] = nothing
        head.bias[2 * tile :] = nothing
    z = head(hidden)[:, tile : 2 * tile].double()
    p = z.softmax(-1)
    found = head_scores(head, hidden, targets, Transform(), entropy=True, hits=True)
    want = z.log_softmax(-1).gather(1, targets[:, None] - tile).squeeze(1)
    torch.testing.assert_close(found["logps"].double(), want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["entropy"].double(), -(p * p.log()).sum(1), atol=1e-5, rtol=1e-5)
    assert torch.equal(found["hits"].bool(), z.argmax(-1) + tile == targets)
    found["logps"].sum().backward()
    assert head.weight.grad[:tile].abs().max() == 0
    assert head.weight.grad.isfinite().all()
