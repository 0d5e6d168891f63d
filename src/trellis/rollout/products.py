"""Products of few rows with large matrices, as decoding has them: bound by how a matrix is read, not by arithmetic.

oneDNN, which comes with torch, keeps a copy of a matrix in blocks and then multiplies 2 to 32 rows in 0.3 to 0.7 of the time that
`nn.Linear` takes. The copies are made at the first token, serve one call of `sample`, and are gone after it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

SMALL = 1 << 16
"""Matrices of fewer numbers stay as they are."""

ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
"""Rows are filled up to one of these; more than the last are multiplied as ever. oneDNN keeps about half a MiB of code for each
pair of a matrix's shape and a number of rows."""

ROOM, MOST = 1 << 28, 1 << 30
"""Bytes of copies that any model may have, and that a model may have of which more is trained."""


@contextmanager
def in_blocks(model: nn.Module) -> Iterator[None]:
    """Float32 matrices of `model` on a CPU multiply few rows from copies in blocks, where no gradient is wanted.

    The largest come first, as long as all copies together are no larger than what is trained of the model, whose gradients do not
    exist while sampling; `ROOM` is there for any model, and nobody gets more than `MOST`.
    """
    chosen = _chosen(model, ROOM) if _known() else []
    for linear in chosen:
        linear.forward = _forward(linear)
    try:
        yield
    finally:
        for linear in chosen:
            del linear.forward


def _known() -> bool:
    ops = torch.ops.mkldnn
    with_ops = hasattr(ops, "_linear_pointwise") and hasattr(ops, "_reorder_linear_weight")
    return with_ops and torch.backends.mkldnn.is_available()


def _chosen(model: nn.Module, room: int) -> list[nn.Linear]:
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    left = min(max(room, trained), MOST)
    plain = [m for m in model.modules() if type(m) is nn.Linear and "forward" not in vars(m)]
    chosen = []
    for linear in sorted(plain, key=lambda m: m.weight.numel(), reverse=True):
        weight = linear.weight
        fits = SMALL <= weight.numel() and 4 * weight.numel() <= left
        if fits and type(weight) is nn.Parameter and weight.dtype == torch.float32 and weight.is_cpu:
            left -= 4 * weight.numel()
            chosen.append(linear)
    return chosen


def _forward(linear: nn.Linear) -> Callable[[Tensor], Tensor]:
    blocks: list[Tensor] = []

    def forward(x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        plain = (
            x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu") and not torch.is_grad_enabled()
        )
        if not plain or not 0 < len(rows) <= ROWS[-1]:
            return nn.functional.linear(x, linear.weight, linear.bias)
        if not blocks:
            blocks.append(torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None))
        more = ROWS[bisect_left(ROWS, len(rows))] - len(rows)
        padded = nn.functional.pad(rows, (0, 0, 0, more)) if more else rows
        out = torch.ops.mkldnn._linear_pointwise(padded, blocks[0], linear.bias, "none", [], "")
        return out[: len(rows)].view(*x.shape[:-1], -1)

    return forward
