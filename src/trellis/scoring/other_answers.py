"""Answers to prompts that are scored with another answer anyway: the prompts are read once, the other answers go on from them.

KTO asks for each prompt's own answer, with a gradient, and for another row's, without one. One pass over both would keep the
activations of the second and take it through backward; so the second is a pass of its own that finds the prompts' keys and
values where the first has left them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..types import Scores, TokenBatch
from .attention import Prompts
from .inside import Named, inside
from .layout import Arranged, packed
from .plan import Plan, plan_for
from .scores import laid_out, planned
from .segments import Segments


def score_with_others(
    model: nn.Module, batch: TokenBatch, others: TokenBatch, *, layout: str = "auto", **asked: Any
) -> tuple[Scores, Tensor]:
    """`score` of a batch, and [B] the summed log-probabilities, without gradient, of `others`: rows i of both share a prompt.

    Where the layout does not share prompts, or the rows do not begin alike, they are two passes over everything.
    """

    def run(module: nn.Module) -> Named:
        plan = plan_for(module, layout)
        if not _shares(plan, batch, others):
            with torch.no_grad():
                second = planned(module, others, plan)["logps"]
            return {**planned(module, batch, plan, **asked), "others": second.sum(1)}
        # Not the last token of a prompt, which predicts the first of an answer.
        before = (batch.prompt_len - 1).clamp(min=0)
        prompts = Prompts(before.tolist())
        with prompts.kept():
            first = laid_out(module, batch, packed(batch), **asked)
        tails = _after(others, before)
        with torch.no_grad(), prompts.gone_on_from():
            second = laid_out(module, tails, _going_on(tails, before))["logps"]
        return {**first, "others": second.sum(1)}

    found = inside(model, run)
    return Scores(**{k: v for k, v in found.items() if k != "others"}), found["others"]


def _shares(plan: Plan, batch: TokenBatch, others: TokenBatch) -> bool:
    """Whether the rows of two batches, none of them empty, begin with the same prompts, and the plan makes use of it."""
    same = plan.layout == "shared" and torch.equal(batch.prompt_len, others.prompt_len)
    if not same or not len(batch) or not bool((torch.cat([batch.lengths, others.lengths]) > 0).all()):
        return False
    width = int(batch.prompt_len.max())
    differ = batch.input_ids[:, :width] != others.input_ids[:, :width]
    inside_prompt = torch.arange(width, device=differ.device) < batch.prompt_len[:, None]
    return not bool((differ & inside_prompt).any())


def _after(batch: TokenBatch, before: Tensor) -> TokenBatch:
    """The rows without their first `before` [B] tokens."""
    lengths = batch.lengths - before
    columns = torch.arange(int(lengths.max()), device=before.device)
    at = (before[:, None] + columns).clamp(max=batch.input_ids.shape[1] - 1)
    inside_row = columns < lengths[:, None]
    return TokenBatch(
        input_ids=batch.input_ids.gather(1, at),
        attention_mask=inside_row,
        loss_mask=batch.loss_mask.gather(1, at) & inside_row,
        group=batch.group,
        prompt_len=batch.prompt_len - before,
    )


def _going_on(tails: TokenBatch, before: Tensor) -> Arranged:
    """The rows end to end, each after `before` [B] tokens that were read in an earlier pass."""
    arranged = packed(tails)
    offset = before.repeat_interleave(tails.lengths)[None]
    after = [row if n else -1 for row, n in enumerate(before.tolist())]
    inputs = {
        **arranged.inputs,
        "position_ids": arranged.inputs["position_ids"] + offset,
        "attention_mask": Segments(tails.lengths.tolist(), after).describe(before.device),
    }
    return replace(arranged, inputs=inputs)
