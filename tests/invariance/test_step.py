"""One batch, computed in different ways: the same gradient and the same metrics."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.builders import recompute_activations

from .cases import CASES, ROWS, assert_equal_gradients, gradient, reordered, wider

pytestmark = pytest.mark.parametrize("name", CASES)


def built(name: str, folder: Any, **changes: Any) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    """(trainer, its batch, the batch's gradient)"""
    trainer = CASES[name].build(str(folder), ROWS, 1, **changes)
    batch = CASES[name].step(trainer)
    return trainer, batch, gradient(trainer, batch)


def recomputing(trainer: Any) -> int:
    """How many layers recompute their activations."""
    return sum(getattr(m, "gradient_checkpointing", False) for m in trainer.model.modules())


@pytest.mark.parametrize("peft", [False, True])
def test_padded_is_packed(name: str, peft: bool, tmp_path: Any) -> None:
    trainer, batch, want = built(name, tmp_path, peft=peft, layout="packed")
    trainer.args.layout = "padded"
    assert_equal_gradients(gradient(trainer, batch), want)


def test_more_padding_changes_nothing(name: str, tmp_path: Any) -> None:
    trainer, batch, want = built(name, tmp_path)
    for layout in ("packed", "padded"):
        trainer.args.layout = layout
        assert_equal_gradients(gradient(trainer, wider(batch, 5)), want)


def test_the_order_of_rows_changes_nothing(name: str, tmp_path: Any) -> None:
    trainer, batch, want = built(name, tmp_path)
    assert_equal_gradients(gradient(trainer, reordered(batch, torch.randperm(ROWS))), want)


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_gradient_checkpointing_changes_nothing(name: str, layout: str, tmp_path: Any) -> None:
    trainer, batch, want = built(name, tmp_path, layout=layout)
    before = recomputing(trainer)
    recompute_activations(trainer.model)
    assert before == 0 < recomputing(trainer)
    assert_equal_gradients(gradient(trainer, batch), want)


def test_a_step_is_the_sum_of_its_rows(name: str, tmp_path: Any) -> None:
    trainer, batch, want = built(name, tmp_path)
    items = float(trainer.count_items([batch]))
    total: dict[str, torch.Tensor] = {}
    for i in range(ROWS):
        part = reordered(batch, torch.tensor([i]))
        share = float(trainer.count_items([part])) / items
        for key, value in gradient(trainer, part).items():
            if key not in trainer.meter.metrics:
                total[key] = total.get(key, torch.zeros_like(value)) + share * value
    assert_equal_gradients(total, {k: v for k, v in want.items() if k not in trainer.meter.metrics})
