"""Rows 8 to 10: the first preference pairs."""

import pytest

from trellis import DPOConfig, DPOTrainer

from .page import promised
from .parts import ONE_STEP, policy

PAIR = {"prompt": "what is the answer ?", "chosen": " four", "rejected": " two"}


def trainer(tokenizer, rows, **settings):
    args = DPOConfig("out", **ONE_STEP, **settings)
    return DPOTrainer(policy(tokenizer), args=args, train_dataset=rows, processing_class=tokenizer)


@pytest.mark.parametrize(
    ("situation", "row"),
    [
        ("8", {"prompt": "it is", "choosen": " four", "rejected": " two"}),
        ("9", {**PAIR, "rejected": PAIR["chosen"]}),
    ],
)
def test_rows_8_and_9_pairs_that_cannot_be_used_are_one_message(tokenizer, situation, row):
    with pytest.raises(ValueError, match="train_dataset: no") as error:
        trainer(tokenizer, [row, row])
    assert str(error.value) == promised(situation)


def test_row_10_long_prompts_are_cut_alike_and_counted(tokenizer):
    long = {**PAIR, "prompt": PAIR["prompt"] * 40}
    found = trainer(tokenizer, [long, long], max_length=16)
    assert found.reports["train_dataset"].rows_cut == 2
    row = found.train_dataset[0]
    whole = tokenizer(long["prompt"])["input_ids"]
    assert row["prompt_ids"] == whole[-len(row["prompt_ids"]) :]
    assert len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) == 16
    found.train()
    assert found.state.global_step == 1
