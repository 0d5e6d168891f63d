"""Rows 13 and 14: the first labelled answers."""

import logging

from trellis import KTOConfig, KTOTrainer

from .page import promised
from .parts import ONE_STEP, TEXTS, policy


def trainer(tokenizer, labels, **settings):
    rows = [
        {"prompt": "it is", "completion": f" {text}", "label": label}
        for text, label in zip(TEXTS, labels, strict=True)
    ]
    args = KTOConfig("out", **ONE_STEP, **settings)
    return KTOTrainer(policy(tokenizer), args=args, train_dataset=rows, processing_class=tokenizer)


def test_row_13_a_batch_of_one_row_trains(tokenizer):
    found = trainer(tokenizer, [True, False] * 2, per_device_train_batch_size=1)
    found.train()
    assert found.state.global_step == 1
    assert found.state.log_history[0]["kl"] == 0.0


def test_row_14_one_kind_of_label_is_one_warning(tokenizer, caplog):
    with caplog.at_level(logging.WARNING, "trellis.trainers"):
        trainer(tokenizer, [True] * 4)
    assert [r.getMessage() for r in caplog.records] == [promised("14")]


def test_row_14_labels_out_of_balance_are_one_warning_with_weights(tokenizer, caplog):
    with caplog.at_level(logging.WARNING, "trellis.trainers"):
        trainer(tokenizer, [True, True, True, False])
    assert [r.getMessage() for r in caplog.records] == [promised("14b")]
