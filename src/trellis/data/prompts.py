"""Which prompts belong to which rollout: pure functions of the seed, so that a resumed run asks for the same ones."""

from __future__ import annotations

import torch


def epoch_order(n: int, seed: int, epoch: int) -> list[int]:
    """A permutation of 0 … n−1 that depends on (seed, epoch) alone."""
    if n < 1:
        raise ValueError(f"expected at least 1 prompt, found {n}")
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(n, generator=generator).tolist()


def prompt_indices(start: int, count: int, n: int, seed: int, *, shuffle: bool = True) -> list[int]:
    """The `count` prompts from position `start` of the endless sequence of epochs: each prompt once per epoch.

    Rollout i with k prompts takes prompt_indices(i·k, k, n, seed); rollouts may cross an epoch's end.
    """
    if n < 1:
        raise ValueError(f"expected at least 1 prompt, found {n}")
    picked: list[int] = []
    while len(picked) < count:
        epoch, offset = divmod(start + len(picked), n)
        order = epoch_order(n, seed, epoch) if shuffle else list(range(n))
        picked += order[offset : offset + count - len(picked)]
    return picked
