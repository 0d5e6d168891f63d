"""What vLLM's workers learn from Trellis: taking over weights. vLLM mixes this class into its worker by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .channel import Channel, device_id, listen

Manifest = list[tuple[str, str, list[int]]]
"""(name, dtype as 'bfloat16', shape) of each tensor, in the order in which they come."""


class WeightReceiver:
    """Added to a worker that has `rank`, `device` and `model_runner.model.load_weights`."""

    rank: int
    device: torch.device
    model_runner: Any
    trellis_channel: Channel | None = None
    trellis_store: Any = None

    def trellis_device(self) -> str:
        """The GPU this worker runs on."""
        return device_id(self.device)

    def trellis_listen(self, port: int, timeout: float) -> None:
        """Be there for the trainer and the other workers, or fail at once (a client of a foreign program would wait for ever)."""
        self.trellis_close()
        self.trellis_store = listen(port, timeout) if self.rank == 0 else None

    def trellis_open(self, host: str, port: int, world: int, timeout: float) -> None:
        """Meet the trainer, who is the last rank of `world`."""
        self.trellis_channel = Channel(
            host,
            port,
            rank=self.rank,
            world=world,
            device=self.device,
            timeout=timeout,
            store=self.trellis_store,
        )

    def trellis_receive(self, manifest: Manifest) -> None:
        """Take over the tensors that the trainer sends."""
        channel = self.trellis_channel
        if channel is None:
            raise ValueError("no trainer has opened a channel for weights")
        broken: Exception | None = None
        for name, dtype, shape in manifest:
            tensor = torch.empty(shape, dtype=getattr(torch, dtype), device=self.device)
            channel.broadcast(tensor, channel.world - 1)
            try:
                # After an error the rest is still received, or the trainer would wait for us.
                if broken is None:
                    self.trellis_load([(name, tensor)])
            except (ValueError, KeyError, RuntimeError, AssertionError) as error:
                broken = ValueError(f"parameter {name} {shape}: {type(error).__name__}: {error}")
        if broken is not None:
            raise broken

    def trellis_load(self, weights: list[tuple[str, Tensor]]) -> None:
        """Take over tensors of this process, under transformers' names."""
        self.model_runner.model.load_weights(weights=weights)

    def trellis_close(self) -> None:
        """Part from the trainer."""
        if self.trellis_channel is not None:
            self.trellis_channel.close()
        self.trellis_channel = self.trellis_store = None
