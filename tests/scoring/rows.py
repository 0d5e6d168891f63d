"""Batches of random rows, and what a model says about them by the textbook."""

from __future__ import annotations

import torch
from torch import Tensor

from trellis.types import TokenBatch


def rows(lengths: list[int], vocab: int = 300, seed: int = 0) -> TokenBatch:
    """Random tokens; the first third of each row is its prompt."""
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(0, vocab, (n,), generator=generator).tolist() for n in lengths]
    return TokenBatch.from_lists(
        ids, [[0] * (n // 3) + [1] * (n - n // 3) for n in lengths], prompt_len=[n // 3 for n in lengths]
    )


def plain(model: torch.nn.Module, batch: TokenBatch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies from whole logits, shifted by one, one unpadded row at a time."""
    kind = torch.float64 if next(model.parameters()).dtype == torch.float64 else torch.float32
    logps, entropies = (torch.zeros(batch.input_ids.shape, dtype=kind) for _ in range(2))
    for i, n in enumerate(batch.lengths.tolist()):
        if n < 2:
            continue
        logits = model(input_ids=batch.input_ids[i : i + 1, :n], use_cache=False).logits[0].to(kind)
        p = (logits / temperature).log_softmax(-1)
        logps[i, 1:n] = p[:-1].gather(-1, batch.input_ids[i, 1:n, None]).squeeze(-1)
        entropies[i, 1:n] = -(p.exp() * p).sum(-1)[:-1]
    return logps * batch.loss_mask, entropies * batch.loss_mask


def gradients(model: torch.nn.Module, total: Tensor) -> dict[str, Tensor]:
    """{name: gradient} of every parameter that got one."""
    model.zero_grad()
    total.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_gradients_close(found: dict[str, Tensor], want: dict[str, Tensor], **limits: float) -> None:
    """The same parameters have the same gradients."""
    assert found.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(found[name], value, msg=lambda m, n=name: f"{n}: {m}", **limits)
