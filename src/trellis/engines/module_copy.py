"""A model in several processes at once: sent without its tensors, which lie in memory that all of them see."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

Slot = tuple[int, str, list[int], bool]
"""(offset in bytes, dtype as 'bfloat16', shape, whether it is a parameter) of a tensor."""
WRAPPED = ("forward", "_original_forward", "_old_forward", "_hf_hook")
"""What wrappers of a training process leave on a module."""
ALIGNED = 64


class Outgoing:
    """`model` as other processes get it: `module` (bytes) and `slots`, its tensors in the file `path`.

    Raises ValueError for a model that cannot be sent.
    """

    def __init__(self, model: nn.Module) -> None:
        stream = io.BytesIO()
        pickler = _Pickler(stream)
        try:
            pickler.dump(model)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"this {type(model).__name__} cannot be sent to a process that samples ({error}); its classes must be in modules "
                "that can be imported, and its hooks functions of such modules"
            ) from error
        self.module, self.slots, end = stream.getvalue(), [], 0
        for tensor in pickler.tensors:
            parameter = isinstance(tensor, nn.Parameter)
            self.slots.append((end, str(tensor.dtype).removeprefix("torch."), list(tensor.shape), parameter))
            end += -(-tensor.nbytes // ALIGNED) * ALIGNED
        self.path, memory = _allocate(max(end, ALIGNED))
        self._views = views(memory, self.slots)
        self._names = {name: pickler.known[id(tensor)] for name, tensor in _named(model)}
        for tensor, view in zip(pickler.tensors, self._views, strict=True):
            view.copy_(tensor.detach())

    def fits(self, model: nn.Module) -> bool:
        """Whether `model` has the same tensors by name and shape."""
        now = {name: (list(x.shape), str(x.dtype).removeprefix("torch.")) for name, x in _named(model)}
        return now == {name: (self.slots[at][2], self.slots[at][1]) for name, at in self._names.items()}

    @torch.no_grad()
    def refresh(self, model: nn.Module) -> None:
        """Take over the numbers of `model`, which `fits`."""
        done = set()
        for name, tensor in _named(model):
            at = self._names[name]
            if at not in done:
                done.add(at)
                self._views[at].copy_(tensor)

    def unlink(self) -> None:
        """Every process has opened the file: nothing shall remain of it after them."""
        Path(self.path).unlink(missing_ok=True)


def incoming(
    module: bytes, path: str, slots: list[Slot], device: torch.device
) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """(the model, pairs of a copy and its original in shared memory). On a CPU the model's tensors are the originals."""
    memory = torch.from_file(path, shared=True, size=os.path.getsize(path), dtype=torch.uint8)
    shared = views(memory, [tuple(slot) for slot in slots])  # type: ignore[misc]
    own = [view.to(device) for view in shared]
    made = [
        nn.Parameter(x, requires_grad=False) if slot[3] else x for x, slot in zip(own, slots, strict=True)
    ]
    model = _Unpickler(io.BytesIO(module), made).load()
    pairs = [(x.data, view) for x, view in zip(made, shared, strict=True)]
    return model.eval(), [] if device.type == "cpu" else pairs


def views(memory: Tensor, slots: list[Slot]) -> list[Tensor]:
    """The tensors at `slots` of `memory` (bytes)."""
    found = []
    for start, name, shape, _ in slots:
        dtype = getattr(torch, name)
        count = torch.Size(shape).numel() * dtype.itemsize
        found.append(memory[start : start + count].view(dtype).view(shape))
    return found


def _named(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _allocate(size: int) -> tuple[str, Tensor]:
    """A file of `size` bytes, in memory where there is room, and what is in it."""
    try:
        path = _file(size, "/dev/shm")
    except OSError:  # there is none, or it is too small
        path = _file(size, None)
    return path, torch.from_file(path, shared=True, size=size, dtype=torch.uint8)


def _file(size: int, folder: str | None) -> str:
    handle, path = tempfile.mkstemp(prefix="trellis-weights-", dir=folder)
    try:
        # Room that is only promised would end the process when it is written to.
        getattr(os, "posix_fallocate", lambda file, _, length: os.ftruncate(file, length))(handle, 0, size)
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(handle)
    return path


class _Pickler(pickle.Pickler):
    """Writes a module; a tensor is written as its number among `tensors`."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, protocol=5)
        self.tensors: list[Tensor] = []
        self.known: dict[int, int] = {}

    def persistent_id(self, obj: Any) -> int | None:
        if not isinstance(obj, Tensor):
            return None
        if type(obj) not in (Tensor, nn.Parameter) or obj.layout != torch.strided or hasattr(obj, "ds_id"):
            raise pickle.PicklingError(
                f"it holds a {type(obj).__name__} that is packed, or in pieces on several processes"
            )
        if id(obj) not in self.known:
            self.known[id(obj)] = len(self.tensors)
            self.tensors.append(obj)
        return self.known[id(obj)]

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, nn.Module):
            state = {name: value for name, value in vars(obj).items() if name not in WRAPPED}
            return copyreg.__newobj__, (type(obj),), state  # type: ignore[attr-defined]
        if isinstance(obj, FunctionType) and obj.__name__ == "make_inputs_require_grads":
            return _as_it_is, ()  # gradient checkpointing's, for gradients alone
        return NotImplemented


def _as_it_is() -> Any:
    return _no_change


def _no_change(*args: Any) -> None:
    """A hook that changes nothing."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, tensors: list[Tensor]) -> None:
        super().__init__(stream)
        self.tensors = tensors

    def persistent_load(self, number: int) -> Tensor:
        return self.tensors[number]
