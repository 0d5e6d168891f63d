"""A check reads what the trainers read: the same rows, from all nine."""

import pytest

import trellis
from trellis.data.pack import STRATEGIES, pack
from trellis.plan.reading import READERS, read

TEXTS = ["the battery lasts all day", "it is easy to use", "the price is great .", "the screen is small"]
CHAT = [{"role": "user", "content": "is it good ?"}, {"role": "assistant", "content": "it is very good ."}]
ROWS = {
    "sft": [{"messages": CHAT}, {"messages": CHAT[:1] + [{"role": "assistant", "content": "no " * 50}]}] * 2,
    "pairs": [{"prompt": "the battery", "chosen": f" {t}", "rejected": " is bad"} for t in TEXTS]
    + [{"prompt": "the", "chosen": " same", "rejected": " same"}]
    + [{"prompt": "it is " * 9, "chosen": " the end " * 9, "rejected": " no"}],
    "kto": [
        {"prompt": "the", "completion": f" {t}", "label": i % 2 == 0}
        for i, t in enumerate([*TEXTS * 3, "no " * 30])
    ],
    "prompts": [{"prompt": t, "solution": "4"} for t in TEXTS * 16] + [{"prompt": ""}],
}


def constant(completions, **columns):
    return [0.0] * len(completions)


def prepared_by_trainer(method, rows, args, model, tokenizer):
    more = {"reward_funcs": constant} if READERS[method][0] == "prompts" else {}
    name = "Reward" if method == "reward" else method.upper()
    trainer = getattr(trellis, f"{name}Trainer")(
        model=model, args=args, train_dataset=rows, processing_class=tokenizer, **more
    )
    data = (
        trainer.train_dataset
        if hasattr(trainer, "train_dataset") and trainer.train_dataset is not None
        else None
    )
    return getattr(data, "rows", data)


@pytest.mark.parametrize("method", READERS)
def test_the_rows_are_the_trainers_own(method, configs, llama, classifier, tokenizer):
    rows = ROWS.get(method) or ROWS["prompts" if READERS[method][0] == "prompts" else "pairs"]
    limit = {"max_prompt_length": 3} if method in ("grpo", "rloo") else {"max_length": 20}
    args = configs(method, **({} if method == "ppo" else limit))
    model = classifier if method == "reward" else llama
    reading = read(rows, method, args, tokenizer)
    theirs = prepared_by_trainer(method, rows, args, model, tokenizer)
    assert reading.prepared == [theirs[i] for i in range(len(theirs))]
    assert len(reading.origin) == len(theirs) > 0
    lost = reading.report.rows_cut + reading.report.rows_dropped
    assert lost > 0
    assert method not in ("dpo", "orpo", "cpo", "kto", "grpo", "rloo") or reading.report.rows_cut > 0


def test_pairs_for_kto_and_packed_rows(configs, llama, tokenizer):
    args = configs("kto")
    reading = read(ROWS["pairs"], "kto", args, tokenizer)
    theirs = prepared_by_trainer("kto", ROWS["pairs"], args, llama, tokenizer)
    assert reading.prepared == [theirs[i] for i in range(len(theirs))]
    assert reading.origin == [0, 0, 1, 1, 2, 2, 3, 3, 5, 5]
    for strategy in STRATEGIES:
        args = configs("sft", packing=True, packing_strategy=strategy, max_length=64)
        reading = read(ROWS["sft"], "sft", args, tokenizer)
        theirs = prepared_by_trainer("sft", ROWS["sft"], args, llama, tokenizer)
        assert pack(reading.prepared, 64, strategy) == [theirs[i] for i in range(len(theirs))]


def test_a_row_that_stops_training_does_not_stop_the_reading(configs, tokenizer):
    rows = [
        {"prompt": "the", "completion": " end", "label": label} for label in (True, "yes", False, 3, True)
    ]
    rows[4]["completion"] = None
    reading = read(rows, "kto", configs("kto"), tokenizer)
    assert [number for number, _ in reading.broken] == [1, 3, 4]
    assert reading.origin == [0, 2]
    assert "label" in reading.broken[0][1]


def test_row_numbers_are_those_of_the_data(configs, tokenizer):
    rows = [{"prompt": "a", "chosen": " b", "rejected": " c"} for _ in range(6)]
    rows[1]["chosen"], rows[2]["chosen"], rows[4]["rejected"] = None, " c", " word" * 600
    rows[5]["chosen"] = " word" * 600
    reading = read(rows, "dpo", configs("dpo", max_length=64), tokenizer)
    assert [number for number, _ in reading.broken] == [1]
    assert reading.numbers("chosen and rejected are the same") == [2]
    assert reading.numbers("cut") == [4, 5]
    assert reading.origin == [0, 3, 4, 5]
