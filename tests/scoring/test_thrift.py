"""Norms and gated parts keep less for backward, and give the model's own numbers and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from tests.builders import recompute_activations, tiny_model
from trellis.scoring.plan import trunk_of
from trellis.scoring.thrift import computed_again, thrifty

IDS = torch.tensor([[3, 5, 8, 13, 21, 34, 55], [2, 7, 1, 8, 2, 8, 1]])


def gated(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if hasattr(m, "gate_proj")]


def seen(model: nn.Module) -> tuple[Tensor, dict[str, Tensor], int]:
    """(last states, gradients of a weighted sum of them, bytes kept for backward) of one pass through the trunk as it is."""
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        states = trunk_of(model)(input_ids=IDS, use_cache=False).last_hidden_state
        total = (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    bytes_kept = sum(size for at, size in kept.items() if at not in weights)
    total.backward()
    return (
        states.detach(),
        {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None},
        bytes_kept,
    )


def both(model: nn.Module) -> tuple[int, int]:
    """Bytes kept without and with thrift, after their numbers have been compared."""
    states, grads, much = seen(model)
    with thrifty(trunk_of(model)):
        found, ours, little = seen(model)
    assert torch.equal(found, states)
    assert ours.keys() == grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(ours[name], grad, rtol=1e-5, atol=2e-6 * float(grad.abs().max()), msg=name)
    assert not any("forward" in vars(m) for m in model.modules())
    return much, little


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral"])
def test_the_models_own_numbers_from_less(kind: str) -> None:
    much, little = both(tiny_model(kind))
    assert little < 0.8 * much


def test_biases_and_frozen_weights() -> None:
    model = tiny_model("llama")
    for part in gated(model):
        part.down_proj.bias = nn.Parameter(torch.linspace(-1, 1, part.down_proj.out_features))
    both(model)
    for part in gated(model):
        part.down_proj.weight.requires_grad_(False)
    for name, p in model.named_parameters():
        p.requires_grad_(p.requires_grad and "norm" not in name)
    both(model)


def test_what_is_more_than_a_matrix_is_called_as_it_is() -> None:
    model, calls = tiny_model("llama"), []
    both(model)  # the look at each kind of module is not what is counted
    for part in gated(model):
        part.down_proj.register_forward_hook(lambda m, x, y: calls.append(1) or 2 * y)
    both(model)
    assert len(calls) == 2 * len(gated(model))


def test_other_formulas_keep_their_own() -> None:
    class LoudRMSNorm(nn.Module):
        def __init__(self, weight: Tensor) -> None:
            super().__init__()
            self.weight, self.variance_epsilon = nn.Parameter(weight), 1e-6

        def forward(self, x: Tensor) -> Tensor:
            return x * (1 + self.weight)

    model = tiny_model("llama")
    trunk: Any = trunk_of(model)
    trunk.norm = LoudRMSNorm(torch.ones(trunk.config.hidden_size))
    both(model)


def test_nothing_changes_where_it_would_not_help() -> None:
    model = tiny_model("llama")
    recompute_activations(model)
    assert computed_again(trunk_of(model))
    for asked in (torch.enable_grad, torch.no_grad):
        with asked(), thrifty(trunk_of(model)):
            assert not any("forward" in vars(m) for m in model.modules())


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_inputs_of_adapted_and_of_frozen_matrices() -> None:
    model = tiny_model("llama")
    for part in gated(model):
        part.up_proj.weight.requires_grad_(False)
    both(model)
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj", "gate_proj"], r=2))
    both(adapted.base_model.model)


def test_a_pass_goes_back_twice() -> None:
    model = tiny_model("llama")
    with thrifty(trunk_of(model)):
        total = trunk_of(model)(input_ids=IDS, use_cache=False).last_hidden_state.pow(2).sum()
    names = [n for n, p in model.named_parameters() if "norm" not in n and "layers" in n]
    first, again = (
        torch.autograd.grad(total, [model.get_parameter(n) for n in names], retain_graph=True)
        for _ in range(2)
    )
    for name, one, two in zip(names, first, again, strict=True):
        assert torch.equal(one, two), name


@pytest.mark.parametrize("change", [lambda x: 2 * x, lambda x: x.mul_(2)], ids=["anew", "in place"])
def test_a_norm_that_is_changed_before_it_is_read(change: Callable[[Tensor], Tensor]) -> None:
    model = tiny_model("llama")
    for layer in trunk_of(model).layers:
        layer.self_attn.register_forward_pre_hook(
            lambda m, args, kwargs: (args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}),
            with_kwargs=True,
        )
    both(model)
