"""Rows 3, 11 and 12: the first reward model."""

import pytest
from transformers import TrainingArguments

from trellis import RewardConfig, RewardTrainer

from .page import promised
from .parts import ONE_STEP, judge

PAIR = {"prompt": "what is the answer ?", "chosen": " four", "rejected": " two"}


def test_row_1_tokenizer_is_still_understood(tokenizer):
    with pytest.warns(FutureWarning, match="tokenizer is now processing_class"):
        trainer = RewardTrainer(
            judge(tokenizer), RewardConfig("out", **ONE_STEP), tokenizer=tokenizer, train_dataset=[PAIR]
        )
    trainer.train()
    assert trainer.state.global_step == 1


def test_row_3_plain_training_arguments_are_enough(tokenizer):
    args = TrainingArguments("out", **ONE_STEP)
    trainer = RewardTrainer(judge(tokenizer), args, train_dataset=[PAIR], processing_class=tokenizer)
    trainer.train()
    assert trainer.state.global_step == 1


@pytest.mark.parametrize(
    ("situation", "row", "settings"),
    [
        ("11", PAIR, {"max_length": 4}),
        ("12", {**PAIR, "rejected": PAIR["chosen"]}, {}),
    ],
)
def test_rows_11_and_12_pairs_that_teach_nothing_are_one_message(tokenizer, situation, row, settings):
    with pytest.raises(ValueError, match="none of the 2 rows") as error:
        RewardTrainer(
            judge(tokenizer),
            RewardConfig("out", **ONE_STEP, **settings),
            train_dataset=[row, row],
            processing_class=tokenizer,
        )
    assert str(error.value) == promised(situation)
