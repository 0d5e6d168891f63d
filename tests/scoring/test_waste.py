"""Forward passes are counted as they are: the counters say what the model was really given, and what of it was in vain."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.builders import tiny_classifier, tiny_model
from trellis.scoring import Work, counting, in_chunks, score, sequence_scores, token_values
from trellis.types import Rollout, TokenBatch

PROMPTS, ANSWERS = {0: 7, 1: 4}, [(0, 3), (1, 5), (0, 6), (1, 2), (0, 1)]
"""Tokens of two groups' prompts; (group, tokens) of five answers to them."""
REAL = sum(PROMPTS[group] + n for group, n in ANSWERS)
NEEDED = sum(PROMPTS.values()) + sum(n for _, n in ANSWERS)
LONGEST = max(PROMPTS[group] + n for group, n in ANSWERS)
TRAINED = sum(n for _, n in ANSWERS)
WIDTH = len(ANSWERS) * LONGEST


def batch() -> TokenBatch:
    """The five answers behind their prompts."""
    ids = [
        [10 * group + i for i in range(PROMPTS[group])] + [200 + i for i in range(n)] for group, n in ANSWERS
    ]
    groups, lengths = [group for group, _ in ANSWERS], [PROMPTS[group] for group, _ in ANSWERS]
    marks = [[0] * PROMPTS[group] + [1] * n for group, n in ANSWERS]
    return TokenBatch.from_lists(ids, marks, group=groups, prompt_len=lengths)


def as_rollout(rows: TokenBatch) -> Rollout:
    """The same rows as part of a rollout."""
    blank, row = torch.zeros(rows.input_ids.shape), torch.zeros(len(rows))
    per_token = ("old_logps", "ref_logps", "sampled_logps", "values", "rewards", "advantages", "returns")
    more = {"scores": row, "finished": row.bool(), "row": row.long()}
    return Rollout(**vars(rows), **dict.fromkeys(per_token, blank), **more)


class Seen(TorchDispatchMode):
    """While active: ids that were embedded and rows that were multiplied with the vocabulary's matrix, forward."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.vocab, self.embedded, self.projected = vocab, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.embedding.default:
            self.embedded += args[1].numel()
        if func is torch.ops.aten.mm.default and out.shape[-1] == self.vocab:
            self.projected += out.shape[0]
        return out


@pytest.mark.parametrize(
    ("layout", "trunk", "padding", "repeated"),
    [
        ("shared", NEEDED, 0, 0),
        ("packed", REAL, 0, REAL - NEEDED),
        ("padded", WIDTH, WIDTH - REAL, REAL - NEEDED),
    ],
)
def test_counters_are_what_the_model_did(layout: str, trunk: int, padding: int, repeated: int) -> None:
    model, rows = tiny_model("llama", tie_word_embeddings=False), batch()
    score(model, rows, layout=layout)
    with counting(Work()) as work, Seen(model.config.vocab_size) as seen, torch.no_grad():
        score(model, rows, layout=layout)
    assert (work.trunk_tokens, work.head_rows) == (seen.embedded, seen.projected)
    assert work == Work(1, trunk, NEEDED, padding, repeated, 0, TRAINED, TRAINED)
    assert (work.wasted_tokens, work.wasted_rows) == (padding + repeated, 0)


def test_whole_logits_are_counted_for_every_position() -> None:
    model, rows = tiny_model("llama", output_router_logits=True, tie_word_embeddings=False), batch()
    score(model, rows)
    with counting(Work()) as work, Seen(model.config.vocab_size) as seen, torch.no_grad():
        score(model, rows)
    assert work.head_rows == seen.projected == WIDTH
    assert work.wasted_rows == WIDTH - TRAINED


def test_classifiers_have_no_vocabulary() -> None:
    model, rows = tiny_classifier("llama"), batch()
    with counting(Work()) as work:
        sequence_scores(model, rows)
        token_values(model, rows)
    assert work == Work(passes=2, trunk_tokens=2 * NEEDED, useful_tokens=2 * NEEDED)


def test_a_group_that_is_scored_in_parts_is_cut() -> None:
    model, rows = tiny_model("llama"), batch()
    with counting(Work()) as work, torch.no_grad():
        in_chunks(lambda part: score(model, part).logps, rows, 2)
    # Parts are rows 0 1, 2 3 and 4: group 0 is read three times, group 1 twice.
    assert work.cut_tokens == 2 * PROMPTS[0] + PROMPTS[1]
    assert work.trunk_tokens == NEEDED + work.cut_tokens
    assert (work.useful_tokens, work.repeated_tokens, work.pad_tokens) == (NEEDED, 0, 0)


def test_a_group_that_is_trained_in_parts_is_cut() -> None:
    model, rollout = tiny_model("llama"), as_rollout(batch())
    parts = [rollout.rows([0, 1]), rollout.rows([2, 3, 4])]
    with counting(Work()) as work:
        for part in parts:
            score(model, part)
        assert work.cut_tokens == sum(PROMPTS.values())
        work.step.clear()  # another optimizer step
        score(model, parts[0])
    assert work.cut_tokens == sum(PROMPTS.values())
    with counting(Work()) as work:  # groups of other batches are theirs alone
        for start in (0, 2):
            score(model, batch().slice(start, 5))
    assert work.cut_tokens == 0


def test_nobody_counts_unasked() -> None:
    model, rows, work = tiny_model("llama"), batch(), Work()
    with counting(work), counting(Work()) as inner:
        score(model, rows)
        inner.paused = True
        score(model, rows)
    score(model, rows)
    assert (work.passes, inner.passes) == (0, 1)
