"""Rows to records, and what other people's collators return."""

import pytest
import torch
from transformers import DataCollatorForLanguageModeling, DataCollatorForSeq2Seq

from trellis.data import collate_pairs, collate_tokens, tokens_from_labels

ROWS = [
    {"input_ids": [5, 6, 7, 8], "loss_mask": [0, 0, 1, 1], "prompt_len": 2},
    {"input_ids": [5, 9], "loss_mask": [0, 1], "prompt_len": 1},
]
LABELLED = [
    {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]},
    {"input_ids": [5, 9], "labels": [-100, 9]},
]


def test_tokens():
    batch = collate_tokens(ROWS, pad=1, multiple=3)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 1, 1], [5, 9, 1, 1, 1, 1]]
    assert batch.lengths.tolist() == [4, 2]
    assert batch.prompt_len.tolist() == [2, 1]
    assert batch.loss_mask.sum().item() == 3


def test_the_pad_id_may_be_a_real_token():
    batch = collate_tokens([{"input_ids": [5, 8, 8], "loss_mask": [0, 1, 1]}, ROWS[0]], pad=8)
    assert batch.lengths.tolist() == [3, 4]
    assert batch.loss_mask[0].tolist() == [False, True, True, False]


def test_pairs_are_chosen_then_rejected():
    rows = [
        {"prompt_ids": [5], "chosen_ids": [6, 7], "rejected_ids": [8], "margin": 0.5},
        {"prompt_ids": [5, 5], "chosen_ids": [6], "rejected_ids": [9, 9]},
    ]
    batch = collate_pairs(rows, pad=0)
    assert batch.tokens.input_ids.tolist() == [[5, 6, 7, 0], [5, 5, 6, 0], [5, 8, 0, 0], [5, 5, 9, 9]]
    assert batch.tokens.group.tolist() == [0, 1, 0, 1]
    assert batch.tokens.prompt_len.tolist() == [1, 2, 1, 2]
    assert batch.tokens.loss_mask.sum(1).tolist() == [2, 1, 1, 2]
    assert batch.margin.tolist() == [0.5, 0.0]


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_stock_collator_gives_the_same_batch(side, tokenizer):
    tokenizer.padding_side = side
    batch = tokens_from_labels(DataCollatorForSeq2Seq(tokenizer)(LABELLED))
    own = collate_tokens(ROWS, pad=0)
    assert batch.input_ids.tolist() == own.input_ids.tolist()
    assert batch.loss_mask.tolist() == own.loss_mask.tolist()


def test_the_language_modelling_collator(tokenizer):
    batch = tokens_from_labels(
        DataCollatorForLanguageModeling(tokenizer, mlm=False)(
            [{"input_ids": [5, 6, 7]}, {"input_ids": [8, 9]}]
        )
    )
    assert batch.loss_mask.tolist() == [[False, True, True], [False, True, False]]


def test_rows_joined_without_padding_are_taken_apart():
    ids = torch.tensor([[5, 6, 7, 8, 5, 9]])
    labels = torch.tensor([[-100, -100, 7, 8, -100, 9]])
    batch = tokens_from_labels(
        {"input_ids": ids, "labels": labels, "position_ids": torch.tensor([[0, 1, 2, 3, 0, 1]])}
    )
    assert batch.input_ids.tolist() == collate_tokens(ROWS, pad=0).input_ids.tolist()


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ({"input_ids": [[1, 2]]}, r"missing: \['labels'\]"),
        ({"input_ids": [[1, 2, 3]], "labels": [[2, 3, -100]]}, "unshifted"),
    ],
)
def test_a_collator_that_says_something_else_is_refused(batch, says):
    with pytest.raises(ValueError, match=says):
        tokens_from_labels(batch)
