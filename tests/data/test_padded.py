"""Tokenised rows as padded tensors, with the keys and the values of TRL's collators."""

import pytest
import torch

from tests.trainers.dpo_runs import dpo
from trellis.data.collate import tokens_from_labels
from trellis.data.padded import (
    ChosenThenRejected,
    DataCollatorForLanguageModeling,
    DataCollatorForPreference,
    pad,
)

ROWS = [{"input_ids": [1, 2, 3]}, {"input_ids": [4, 5]}]
MARKED = [{**row, "completion_mask": [0] + [1] * (len(row["input_ids"]) - 1)} for row in ROWS]


def lists(batch):
    return {name: x.tolist() for name, x in batch.items()}


def test_rows_are_padded_to_the_longest():
    assert lists(DataCollatorForLanguageModeling(0)(ROWS)) == {
        "input_ids": [[1, 2, 3], [4, 5, 0]],
        "labels": [[1, 2, 3], [4, 5, -100]],
        "attention_mask": [[1, 1, 1], [1, 1, 0]],
    }
    found = DataCollatorForLanguageModeling(7, pad_to_multiple_of=4)(ROWS)
    assert found["input_ids"].tolist() == [[1, 2, 3, 7], [4, 5, 7, 7]]


def test_masks_say_what_is_trained():
    assert DataCollatorForLanguageModeling(0)(MARKED)["labels"].tolist() == [[-100, 2, 3], [-100, 5, -100]]
    everything = DataCollatorForLanguageModeling(0, completion_only_loss=False)(MARKED)
    assert everything["labels"].tolist() == [[1, 2, 3], [4, 5, -100]]
    both = [{**MARKED[0], "assistant_masks": [1, 0, 1]}, {**MARKED[1], "assistant_masks": [1, 1]}]
    assert DataCollatorForLanguageModeling(0)(both)["labels"].tolist() == [[-100, -100, 3], [-100, 5, -100]]
    given = [{"input_ids": [1, 2], "labels": [-100, 2]}]
    assert DataCollatorForLanguageModeling(0)(given)["labels"].tolist() == [[-100, 2]]


def test_without_padding_texts_stand_end_to_end():
    found = DataCollatorForLanguageModeling(0, padding_free=True)(ROWS)
    assert lists(found) == {
        "input_ids": [[1, 2, 3, 4, 5]],
        "labels": [[-100, 2, 3, -100, 5]],
        "position_ids": [[0, 1, 2, 0, 1]],
    }
    packed = [{"input_ids": [1, 2, 3, 4], "seq_lengths": [3, 1]}, {"input_ids": [5, 6], "seq_lengths": [2]}]
    found = DataCollatorForLanguageModeling(0, padding_free=True)(packed)
    assert found["position_ids"].tolist() == [[0, 1, 2, 0, 0, 1]]
    assert tokens_from_labels(found).lengths.tolist() == [3, 1, 2]  # as a trainer reads it


def test_pairs_have_their_prompts_on_the_left():
    rows = [
        {"prompt_input_ids": [1, 2, 3], "chosen_input_ids": [4, 5], "rejected_input_ids": [6]},
        {"prompt_input_ids": [7], "chosen_input_ids": [8], "rejected_input_ids": [9, 10]},
    ]
    found = lists(DataCollatorForPreference(0)(rows))
    assert found["prompt_input_ids"] == [[1, 2, 3], [0, 0, 7]]
    assert found["prompt_attention_mask"] == [[1, 1, 1], [0, 0, 1]]
    assert found["chosen_input_ids"] == [[4, 5], [8, 0]]
    assert found["rejected_attention_mask"] == [[1, 0], [1, 1]]
    known = [{**row, "ref_chosen_logps": -1, "ref_rejected_logps": -2} for row in rows]
    assert DataCollatorForPreference(0)(known)["ref_rejected_logps"].tolist() == [-2, -2]


def test_a_reward_batch_is_chosen_then_rejected():
    rows = [
        {"chosen_input_ids": [1, 2, 3], "rejected_input_ids": [4, 5], "margin": 0.5},
        {"chosen_input_ids": [6], "rejected_input_ids": [7], "margin": 0},
    ]
    found = lists(ChosenThenRejected(0)(rows))
    assert found["input_ids"] == [[1, 2, 3], [6, 0, 0], [4, 5, 0], [7, 0, 0]]
    assert found["margin"] == [0.5, 0]


def test_sides_and_kinds_that_do_not_exist_are_refused():
    assert pad([torch.ones(1, 2), torch.ones(2, 1)]).shape == (2, 2, 2)
    assert pad([torch.ones(1, device="meta")]).device.type == "meta"
    with pytest.raises(ValueError, match="expected 'left' or 'right'"):
        pad([torch.ones(1)], padding_side="up")
    with pytest.raises(ValueError, match="only torch tensors"):
        DataCollatorForPreference(0, return_tensors="np")


def test_a_trainer_takes_them_and_trains_the_same(tmp_path):
    plain = dpo(tmp_path / "a", max_steps=1)
    given = dpo(tmp_path / "b", max_steps=1, trainer={"data_collator": DataCollatorForPreference(0)})
    losses = [trainer.train().training_loss for trainer in (plain, given)]
    assert losses[0] == losses[1]
