"""The records that flow through Trellis, and the one alignment rule.

Alignment: every per-token tensor is `[B, T]`, right-padded, and index `t` speaks about token `t`: its log-probability given
the tokens before it, its reward, the value of the state in which it was chosen. Token 0 has no past, so position 0 is 0 and
never masked in. The shift by one that a causal model needs happens in `scoring` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

Metrics = dict[str, tuple[Tensor, Tensor | float]]
"""`{name: (sum, count)}`: divided once, after every micro-batch and rank has been added (see `metrics.Meter`)."""


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


class Record:
    """A dataclass of tensors whose first dimension is the row: it can be moved, indexed and cut as one thing."""

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same record with `change` made to each of its tensors."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return type(self)(**{k: change(v) if isinstance(v, Tensor) else v for k, v in values.items()})

    def to(self, device: torch.device | str, **kwargs: Any) -> Self:
        """The same record on `device` (keyword arguments as for `Tensor.to`)."""
        return self.mapped(lambda x: x.to(device, **kwargs))

    def detach(self) -> Self:
        """The same record without gradients."""
        return self.mapped(lambda x: x.detach())


@dataclass
class TokenBatch(Record):
    """Rows of tokens, right-padded.

    input_ids [B, T] int64; attention_mask [B, T] bool, True on the first `length` positions of each row; loss_mask [B, T] bool,
    True on the tokens that are trained or scored (column 0 is always False); group [B] int64, equal for rows of one prompt;
    prompt_len [B] int64, tokens before the completion (0 where a row has no prompt).

    Raises ValueError when shapes disagree, a row is left-padded, or a masked-in token is padding or the first of its row.
    """

    input_ids: Tensor
    attention_mask: Tensor
    loss_mask: Tensor
    group: Tensor
    prompt_len: Tensor

    def __post_init__(self) -> None:
        shape = self.input_ids.shape
        _check(len(shape) == 2, f"input_ids must be [B, T], found shape {tuple(shape)}")
        for name in ("attention_mask", "loss_mask"):
            value = getattr(self, name)
            _check(
                value.shape == shape,
                f"{name} must be {tuple(shape)} like input_ids, found {tuple(value.shape)}",
            )
            _check(value.dtype == torch.bool, f"{name} must be bool, found {value.dtype}")
        for name in ("group", "prompt_len"):
            value = getattr(self, name)
            _check(value.shape == shape[:1], f"{name} must be [{shape[0]}], found {tuple(value.shape)}")

    def validate(self) -> Self:
        """The batch itself, after the checks that read values (collators call this once; a GPU would have to wait for it)."""
        if self.input_ids.shape[1]:
            _check(
                not bool(self.loss_mask[:, 0].any()),
                "loss_mask column 0 must be False: the first token has no past",
            )
            started = self.attention_mask[:, 1:] & ~self.attention_mask[:, :-1]
            _check(not bool(started.any()), "rows must be right-padded: found padding before a token")
        _check(
            not bool((self.loss_mask & ~self.attention_mask).any()), "loss_mask is True on a padding position"
        )
        return self

    @property
    def lengths(self) -> Tensor:
        """[B] int64: real tokens per row."""
        return self.attention_mask.sum(1)

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def rows(self, index: Tensor | slice | Sequence[int]) -> Self:
        """The rows at `index` (a tensor, slice or list of row numbers), cut to the longest of them."""
        picked = self.mapped(lambda x: x[index])
        return picked.trimmed()

    def slice(self, start: int, end: int) -> Self:
        """Rows `start` to `end`, as wide as they are."""
        return self.mapped(lambda x: x[start:end])

    def trimmed(self) -> Self:
        """The same rows without the columns in which no row has a token."""
        width = int(self.lengths.max()) if len(self) else 0
        full = self.input_ids.shape[1]
        if width == full:
            return self
        return self.mapped(lambda x: x[:, :width] if x.dim() >= 2 and x.shape[1] == full else x)

    @classmethod
    def from_lists(
        cls,
        ids: Sequence[Sequence[int]],
        loss_mask: Sequence[Sequence[int | bool]],
        *,
        group: Sequence[int] | None = None,
        prompt_len: Sequence[int] | None = None,
        pad: int = 0,
        multiple: int | None = None,
    ) -> TokenBatch:
        """Rows of token ids and masks (any lengths) as one right-padded batch; `multiple` rounds the width up."""
        lengths = torch.tensor([len(row) for row in ids], dtype=torch.long)
        width = int(lengths.max()) if len(ids) else 0
        if multiple:
            width = -(-width // multiple) * multiple
        input_ids = torch.full((len(ids), width), pad, dtype=torch.long)
        mask = torch.zeros((len(ids), width), dtype=torch.bool)
        for i, (row, marks) in enumerate(zip(ids, loss_mask, strict=True)):
            _check(len(row) == len(marks), f"row {i}: {len(row)} tokens but {len(marks)} mask entries")
            input_ids[i, : len(row)] = torch.as_tensor(row, dtype=torch.long)
            mask[i, : len(row)] = torch.as_tensor(marks, dtype=torch.bool)
        if width:
            mask[:, 0] = False
        return cls(
            input_ids=input_ids,
            attention_mask=torch.arange(width)[None] < lengths[:, None],
            loss_mask=mask,
            group=torch.arange(len(ids)) if group is None else torch.as_tensor(group, dtype=torch.long),
            prompt_len=torch.zeros(len(ids), dtype=torch.long)
            if prompt_len is None
            else torch.as_tensor(prompt_len, dtype=torch.long),
        ).validate()


@dataclass
class Rollout(TokenBatch):
    """Sampled rows with what was learned about them; everything per token is `[B, T]` float32 and 0 outside `loss_mask`.

    old_logps, ref_logps: log-probabilities under the policy that sampled and under the reference; sampled_logps: what the engine
    that sampled said of them, at its temperature; values: the critic's, at the state in which the token was chosen; rewards: what
    each token earned; advantages, returns: from `advantages.gae` or a group baseline. scores [B]: the reward functions' verdict
    on the whole row. finished [B] bool: the row ended with a stop token.
    row [B] int64: the prompt's index in the training data.
    """

    old_logps: Tensor
    ref_logps: Tensor
    sampled_logps: Tensor
    values: Tensor
    rewards: Tensor
    advantages: Tensor
    returns: Tensor
    scores: Tensor
    finished: Tensor
    row: Tensor


@dataclass
class Scores(Record):
    """What a model says about a TokenBatch. `[B, T]` float32, 0 outside the batch's loss_mask.

    logps: log p(token t | tokens before t) at the asked temperature; entropy: of that distribution, in nats; hits: 1 where the
    token is the most likely one; values: a value head's estimate at the state in which token t was chosen. aux_loss: scalar,
    the load-balancing loss of a mixture-of-experts model.
    """

    logps: Tensor
    entropy: Tensor | None = None
    hits: Tensor | None = None
    values: Tensor | None = None
    aux_loss: Tensor | None = None


@dataclass
class PairBatch(Record):
    """P pairs as one TokenBatch of 2P rows, the P chosen first and then the P rejected; rows i and P + i share a group.

    margin [P] float32: by how much the chosen is better (0 where the data does not say). ref_logps [2P] float32: the rows'
    log-probabilities under a reference, where they were computed before training.
    """

    tokens: TokenBatch
    margin: Tensor
    ref_logps: Tensor | None = None

    def __post_init__(self) -> None:
        pairs = self.margin.shape[0]
        _check(
            len(self.tokens) == 2 * pairs, f"{pairs} pairs need {2 * pairs} rows, found {len(self.tokens)}"
        )

    def to(self, device: torch.device | str, **kwargs: Any) -> PairBatch:
        """The same pairs on `device`."""
        known = None if self.ref_logps is None else self.ref_logps.to(device, **kwargs)
        return PairBatch(self.tokens.to(device, **kwargs), self.margin.to(device, **kwargs), known)

    def __len__(self) -> int:
        return self.margin.shape[0]


@dataclass
class Pair(Record):
    """All that a loss on P pairs may see, each [P].

    chosen, rejected: log π(y|x) − log π_ref(y|x) of each answer, summed over its tokens; chosen_logps, rejected_logps: log π(y|x)
    alone; chosen_length, rejected_length: tokens of each answer.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_logps: Tensor
    rejected_logps: Tensor
    chosen_length: Tensor
    rejected_length: Tensor

    def per_token(self) -> Pair:
        """The same pairs, averaged over each answer's tokens (an answer that is nothing but a row's first token has none)."""
        c, r = self.chosen_length.clamp(min=1), self.rejected_length.clamp(min=1)
        return Pair(self.chosen / c, self.rejected / r, self.chosen_logps / c, self.rejected_logps / r, c, r)

    def __len__(self) -> int:
        return self.chosen.shape[0]


@dataclass
class PairStep:
    """The pairs of a whole optimizer step, of all micro-batches and ranks, without gradients; `index` [P] int64 says which of
    them the pairs at hand are."""

    pairs: Pair
    index: Tensor


@dataclass
class UnpairedBatch(Record):
    """B labelled answers as one TokenBatch: rows i < B are answers to their prompts; where there are 2B rows, row B + i is the
    prompt of row i with another row's answer, in the same group.

    label [B] bool: the answer was liked. ref_logps [B or 2B] float32: the rows' log-probabilities under the reference, where they
    are known already. kl: scalar, the optimizer step's estimate of KL(π ‖ π_ref), once that is known.
    """

    tokens: TokenBatch
    label: Tensor
    ref_logps: Tensor | None = None
    kl: Tensor | None = None

    def __post_init__(self) -> None:
        rows = self.label.shape[0]
        _check(
            len(self.tokens) in (rows, 2 * rows),
            f"{rows} labels need {rows} or {2 * rows} rows, found {len(self.tokens)}",
        )

    def to(self, device: torch.device | str, **kwargs: Any) -> UnpairedBatch:
        """The same answers on `device`."""
        moved = self.mapped(lambda x: x.to(device, **kwargs))
        return replace(moved, tokens=self.tokens.to(device, **kwargs))

    def own(self) -> TokenBatch:
        """The B prompts with their own answers."""
        return self.tokens.rows(slice(0, len(self)))

    def mismatched(self) -> TokenBatch:
        """The prompts with other rows' answers: B of them, or none."""
        return self.tokens.rows(slice(len(self), None))

    def rows(self, index: Tensor) -> UnpairedBatch:
        """The answers at `index` [*], with their mismatched rows."""
        mismatched = len(self.tokens) > len(self)
        both = torch.cat([index, index + len(self)]) if mismatched else index
        known = None if self.ref_logps is None else self.ref_logps[both]
        return UnpairedBatch(self.tokens.rows(both), self.label[index], known, self.kl)

    def __len__(self) -> int:
        return self.label.shape[0]


@dataclass
class LossOutput:
    """A loss as a SUM over its items (never a mean: the divisor belongs to the optimizer step) and its metrics."""

    total: Tensor
    metrics: Metrics = field(default_factory=dict)
