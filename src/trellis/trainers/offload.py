"""Activations that wait for the backward pass in the CPU's memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

SMALL = 1 << 10
"""Elements of a tensor that stays where it is: its way there and back takes longer than it frees memory for."""


class Offload:
    """What backward keeps goes to the CPU and comes back bit by bit; weights, and copies of them that autocast made, stay.

    `moved`: bytes that went there so far. A tensor is taken for a weight by its shape.
    """

    def __init__(self, model: nn.Module, device: str) -> None:
        shapes = (getattr(p, "ds_shape", p.shape) for p in model.parameters())
        self._weights = {tuple(sorted(shape)) for shape in shapes if len(shape) > 1}
        self._device = device
        self.moved = 0

    def __call__(self) -> saved_tensors_hooks:
        """Inside, tensors that are kept for backward are offloaded."""
        return saved_tensors_hooks(self._pack, self._unpack)

    def _goes(self, x: Tensor) -> bool:
        known = tuple(sorted(x.shape)) in self._weights
        return x.device.type == self._device and x.numel() >= SMALL and not known

    def _pack(self, x: Tensor) -> Any:
        if not self._goes(x):
            return x
        # Copies to and from pinned memory stay in the order of the device's stream; nobody waits for them.
        host = torch.empty_like(x, device="cpu", pin_memory=x.device.type == "cuda")
        host.copy_(x, non_blocking=True)
        self.moved += x.nbytes
        return x.device, host

    def _unpack(self, packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        device, host = packed
        return host.to(device, non_blocking=True)
