"""Tensors from the trainer's process to an engine's workers, which are no part of each other's process groups."""

from __future__ import annotations

from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor


def listen(port: int, timeout: float) -> dist.Store:
    """Where the others meet rank 0. Raises ConnectionError at once where the port is taken."""
    try:
        return dist.TCPStore(
            "localhost", port, is_master=True, timeout=timedelta(seconds=timeout), wait_for_workers=False
        )
    except RuntimeError as error:
        raise ConnectionError(
            f"port {port}, where weights are to arrive, cannot be listened on ({str(error).splitlines()[0]}); choose "
            "another with vllm_group_port"
        ) from error


class Channel:
    """One end of a group of `world` processes that meet at `host`:`port`, where rank 0 listens already (`store`).

    NCCL on CUDA (each end on a GPU of its own), gloo elsewhere. Raises ConnectionError when they have not met after `timeout` s.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        rank: int,
        world: int,
        device: torch.device,
        timeout: float,
        store: dist.Store | None = None,
    ) -> None:
        self.rank, self.world, self.device = rank, world, device
        self._limit = limit = timedelta(seconds=timeout)
        try:
            store = store or dist.TCPStore(host, port, timeout=limit)
            self._group = _group(store, rank, world, device, limit)
        except RuntimeError as error:
            raise ConnectionError(
                f"no connection for weights at {host}:{port} ({str(error).splitlines()[0]}); is it behind a firewall? Choose an "
                "open port with vllm_group_port"
            ) from error
        self._store = store

    def broadcast(self, tensor: Tensor, root: int) -> None:
        """`tensor` of rank `root` into that of every other rank. Raises RuntimeError where the others are gone."""
        options = dist.BroadcastOptions()
        options.rootRank = root
        self._group.broadcast([tensor], options).wait(self._limit)

    def close(self) -> None:
        """Let go of the connection."""
        self._group = self._store = None


def _group(
    store: dist.Store, rank: int, world: int, device: torch.device, limit: timedelta
) -> dist.ProcessGroup:
    if device.type != "cuda":
        return dist.ProcessGroupGloo(store, rank, world, limit)
    torch.cuda.set_device(device)
    return dist.ProcessGroupNCCL(store, rank, world, dist.ProcessGroupNCCL.Options())


def device_id(device: torch.device) -> str:
    """What tells one GPU from another across processes ('' for the CPU)."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""
