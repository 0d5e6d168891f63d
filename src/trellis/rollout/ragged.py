"""Prompts read end to end and once, and completions that go on from them: nothing is padded, no prompt's memory is copied.

For models whose layers are plain attention, on a CPU, which calls its kernel per prompt anyway; a probe shows that a model's
numbers stay its own. Elsewhere see `padded`.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..models import base_causal_lm, cache_name, unwrap
from .attention import MARK, Reading, install, reading
from .cache import completion_cache
from .modes import evaluation
from .params import RolloutStats
from .products import in_blocks

logger = logging.getLogger(__name__)
PREFILL_TOKENS = 2_048
"""Prompt tokens read at once, unless one prompt is longer."""


@dataclass
class Prompts:
    """Prompts that were read. logits [P, V] after each; lengths: tokens of each; layers: keys and values of each, by layer."""

    model: nn.Module
    logits: Tensor
    lengths: list[int]
    layers: list[list[tuple[Tensor, Tensor]]]

    def start(self, at: Sequence[int], last: bool) -> Rows:
        """Rows that go on from the prompts `at` (in order, repeated where several rows go on from one), `last` or not."""
        cache = completion_cache(self.model.config)
        rows = Rows(
            self.model, cache, self.logits[list(at)], torch.tensor([self.lengths[i] for i in at]), list(at)
        )
        owners = sorted(set(at))
        for layer, prompts in zip(cache.layers, self.layers, strict=True):
            layer.prompts = [prompts[i] for i in owners]  # type: ignore[attr-defined]
        return rows


@dataclass
class Rows:
    """Rows between two forward passes: logits [R, V] and position [R] of the next token; owner: the prompt each goes on from."""

    model: nn.Module
    cache: Any
    logits: Tensor
    position: Tensor
    owner: list[int]

    def select(self, keep: list[int]) -> None:
        """Only the rows `keep`, in that order."""
        at = torch.tensor(keep)
        before = sorted(set(self.owner))
        self.owner = [self.owner[k] for k in keep]
        needed = [before.index(i) for i in sorted(set(self.owner))]
        for layer in self.cache.layers:
            layer.reorder_cache(at)
            layer.prompts = [layer.prompts[i] for i in needed]
        self.logits, self.position = self.logits[at], self.position[at]

    def advance(self, tokens: Tensor) -> None:
        """Read one token per row."""
        rows = [self.owner.count(i) for i in sorted(set(self.owner))]
        with reading(Reading(self.cache.layers, rows=rows)):
            self.logits = _forward(self.model, tokens[:, None], self.position[:, None], self.cache)[:, -1]
        self.position = self.position + 1


def read(model: nn.Module, prompts: Sequence[Sequence[int]], stats: RolloutStats) -> Prompts:
    """Every prompt read once, several at a time, without padding."""
    cache = completion_cache(model.config)
    logits = []
    for part in _parts(prompts):
        lengths = [len(p) for p in part]
        ids = torch.cat([torch.as_tensor(p, dtype=torch.long) for p in part])
        position = torch.cat([torch.arange(n) for n in lengths])
        for layer in cache.layers:
            layer.lengths = lengths  # type: ignore[attr-defined]
        with reading(Reading(cache.layers, lengths=lengths)):
            last = torch.tensor(lengths).cumsum(0) - 1
            logits.append(_forward(model, ids[None], position[None], cache, logits_to_keep=last)[0])
        stats.prefill_tokens += len(ids)
    layers = [layer.prompts for layer in cache.layers]  # type: ignore[attr-defined]
    return Prompts(model, torch.cat(logits), [len(p) for p in prompts], layers)


def _parts(prompts: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    part: list[Sequence[int]] = []
    for prompt in prompts:
        if part and sum(map(len, part)) + len(prompt) > PREFILL_TOKENS:
            yield part
            part = []
        part.append(prompt)
    if part:
        yield part


def _forward(model: nn.Module, ids: Tensor, position: Tensor, cache: Any, **kwargs: Any) -> Tensor:
    return model(
        input_ids=ids,
        attention_mask=MARK,
        position_ids=position,
        use_cache=True,
        return_dict=True,
        **{cache_name(model): cache},
        **kwargs,
    ).logits


_problems: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()


def suits(model: nn.Module, longest: int) -> bool:
    """Whether rows of at most `longest` tokens can be sampled from `model` in this way; a model is probed once."""
    lm = base_causal_lm(model)
    on_cpu = all(type(p) in (Tensor, nn.Parameter) and p.device.type == "cpu" for p in model.parameters())
    if unwrap(model) is not model or not on_cpu or getattr(lm.config, "_attn_implementation", None) != "sdpa":
        return False
    window = getattr(lm.config.get_text_config(decoder=True), "sliding_window", None)
    if window is not None and longest > window:
        return False
    if lm not in _problems:
        install()
        _problems[lm] = _difference(model)
        if _problems[lm]:
            logger.info("%s is sampled with padding: %s", type(lm).__name__, _problems[lm])
    return not _problems[lm]


@torch.no_grad()
def _difference(model: nn.Module) -> str:
    """Empty when the model's own forward gives the numbers of this way on three short rows after two prompts, else why not."""
    vocabulary = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    prompts = [[(7 * i + 3 * r + 1) % vocabulary for i in range(n)] for r, n in enumerate((5, 3))]
    more = torch.tensor([[2, 3], [5, 8], [13, 21]]) % vocabulary
    owner = [0, 0, 1]
    try:
        with evaluation(model), in_blocks(model):
            rows = read(model, prompts, RolloutStats()).start(owner, True)
            found = [rows.logits]
            for column in more.T:
                rows.advance(column)
                found.append(rows.logits)
            want = [
                model(input_ids=torch.tensor([prompts[i] + tail.tolist()]), use_cache=False).logits[0, -3:]
                for i, tail in zip(owner, more, strict=True)
            ]
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        return f"{type(error).__name__}: {error}"
    ours, own = torch.stack(found, dim=1), torch.stack(want)
    exact = own.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    worst = float((ours.float() - own.float()).abs().max())
    limit = (1e-3 if exact else 0.1) * max(1.0, float(own.float().abs().max()))
    return "" if worst <= limit else f"numbers differ by {worst:.3g}"
