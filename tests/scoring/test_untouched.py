"""Scoring leaves a model, and the random streams, as it found them; also when it fails, and inside wrappers."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.builders import tiny_classifier, tiny_model
from tests.ranks import run_ranks
from trellis.scoring import inside, score, sequence_scores, token_values
from trellis.types import TokenBatch

from .rows import rows


def state(model: nn.Module) -> dict[str, Any]:
    """Whatever a call could leave changed."""
    return {
        "config": model.config.to_dict(),
        "attention": [
            getattr(m.config, "_attn_implementation", None) for m in model.modules() if hasattr(m, "config")
        ],
        "generation": getattr(model, "generation_config", None) and model.generation_config.to_dict(),
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "training": [m.training for m in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "grads": [(p.requires_grad, p.grad) for p in model.parameters()],
        "weights": [p._version for p in model.parameters()],
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
        "enabled": torch.is_grad_enabled(),
    }


CALLS = {
    "score": lambda m, b: score(m, b, entropy=True, hits=True, temperature=0.5),
    "padded": lambda m, b: score(m, b, layout="padded"),
    "values": token_values,
    "verdicts": sequence_scores,
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("training", [False, True])
def test_a_call_changes_nothing(name: str, training: bool) -> None:
    build = tiny_classifier if name in ("values", "verdicts") else tiny_model
    model = build("llama", attention_dropout=0.0).train(training)
    model.model.layers[0].eval()  # flags that differ must come back as they were
    before = state(model)
    CALLS[name](model, rows([11, 3]))
    assert state(model) == before


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_fails_changes_nothing(name: str) -> None:
    model = (tiny_classifier if name in ("values", "verdicts") else tiny_model)("llama").train()
    before = state(model)
    beyond = TokenBatch.from_lists([[1, 2, 10_000]], [[1, 1, 1]])
    with pytest.raises(IndexError):
        CALLS[name](model, beyond)
    assert state(model) == before


class FullyShardedDataParallel(nn.Module):
    """A wrapper as `unwrap` knows them, which counts how often its forward is entered."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.entered = module, 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.entered += 1
        return self.module(*args, **kwargs)


def test_inside_runs_within_the_wrappers_forward() -> None:
    model = tiny_model("llama")
    wrapped, batch = FullyShardedDataParallel(model), rows([5, 9])
    found = score(wrapped, batch)
    assert wrapped.entered == 1
    assert torch.equal(found.logps, score(model, batch).logps)
    assert "forward" not in vars(model)
    with pytest.raises(ZeroDivisionError):
        inside(wrapped, lambda module: {"x": torch.ones(()) * (1 // 0)})
    assert "forward" not in vars(model)


def test_a_forward_of_the_users_own_comes_back() -> None:
    model = tiny_model("llama")
    own = model.forward
    model.forward = own  # an instance attribute, as patched models have
    score(FullyShardedDataParallel(model), rows([5, 9]))
    assert vars(model)["forward"] is own


def ddp_gradients() -> dict[str, Any]:
    """The gradient of a sum over both ranks' rows, by DDP, and by one process."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    model, batch = tiny_model("llama"), rows([7, 4, 9, 5])
    wrapped = nn.parallel.DistributedDataParallel(model)
    score(wrapped, batch.rows([2 * rank, 2 * rank + 1]), entropy=True).logps.sum().backward()
    found = {name: 2 * p.grad.clone() for name, p in model.named_parameters()}  # DDP averages
    model.zero_grad()
    score(model, batch).logps.sum().backward()
    worst = max(float((found[n] - p.grad).abs().max()) for n, p in model.named_parameters())
    return {"worst": worst, "largest": max(float(g.abs().max()) for g in found.values())}


def test_ddp_adds_up_gradients() -> None:
    for answer in run_ranks(ddp_gradients, 2):
        assert answer["worst"] < 1e-4 < 1 < answer["largest"]
