"""Pairs and prompts: every format gives the ids of its canonical form."""

import pytest

from trellis.data import prepare_pairs, prepare_prompts

from .rows import NO, USER, YES, one_pair


@pytest.mark.parametrize(
    ("row", "canonical"),
    [
        (
            {"chosen": [USER, YES], "rejected": [USER, NO]},
            {"prompt": [USER], "chosen": [YES], "rejected": [NO]},
        ),
        (
            {"prompt": [USER], "chosen": [USER, YES], "rejected": [USER, NO]},
            {"prompt": [USER], "chosen": [YES], "rejected": [NO]},
        ),
        (
            {"prompt": USER["content"], "chosen": [USER, YES], "rejected": [USER, NO]},
            {"prompt": [USER], "chosen": [YES], "rejected": [NO]},
        ),
        (
            {"prompt": [USER], "chosen": YES["content"], "rejected": NO["content"]},
            {"prompt": [USER], "chosen": [YES], "rejected": [NO]},
        ),
        (
            {"question": "is it", "chosen": " good", "rejected": " bad"},
            {"prompt": "is it", "chosen": " good", "rejected": " bad"},
        ),
        (
            {"chosen_input_ids": [5, 6, 7], "rejected_input_ids": [5, 6, 8]},
            {"prompt_ids": [5, 6], "chosen_ids": [7], "rejected_ids": [8]},
        ),
    ],
)
def test_a_pair_equals_its_canonical_form(row, canonical, tokenizer):
    assert one_pair(row, tokenizer) == one_pair(canonical, tokenizer)


def test_sides_of_a_plain_pair(tokenizer):
    row = one_pair({"prompt": "is it", "chosen": " good", "rejected": " bad", "margin": 2}, tokenizer)
    ids = [tokenizer(f"is it {word}")["input_ids"] + [tokenizer.eos_token_id] for word in ("good", "bad")]
    assert [row["prompt_ids"] + row[name] for name in ("chosen_ids", "rejected_ids")] == ids
    assert row["prompt_ids"] == tokenizer("is it")["input_ids"]
    assert row["margin"] == 2.0


def test_an_implicit_prompt_is_the_common_beginning(tokenizer):
    row = one_pair({"chosen": "it is good", "rejected": "it is bad"}, tokenizer)
    assert tokenizer.decode(row["prompt_ids"]).startswith("it is")
    assert row["chosen_ids"][0] != row["rejected_ids"][0]
    nested = one_pair({"chosen_input_ids": [5, 6], "rejected_input_ids": [5, 6, 7]}, tokenizer)
    assert nested == {"prompt_ids": [5], "chosen_ids": [6], "rejected_ids": [6, 7]}


def test_prompts_keep_text_and_columns(tokenizer):
    rows = [{"prompt": "is it", "answer": "yes", "n": 1}]
    prepared, report = prepare_prompts(rows, tokenizer)
    assert prepared == [
        {"answer": "yes", "n": 1, "prompt_ids": tokenizer("is it")["input_ids"], "prompt": "is it"}
    ]
    assert (report.rows_in, report.rows_kept) == (1, 1)
    for other in (
        ["is it"],
        [{"query": "is it"}],
        [{"text": "is it"}],
        [{"input_ids": tokenizer("is it")["input_ids"]}],
    ):
        row = prepare_prompts(other, tokenizer)[0][0]
        assert (row["prompt_ids"], row["prompt"]) == (prepared[0]["prompt_ids"], "is it")


def test_a_chat_prompt_asks_for_the_answer(tokenizer):
    row = prepare_prompts([{"prompt": [USER]}], tokenizer)[0][0]
    assert row["prompt"] == [USER]
    assert tokenizer.decode(row["prompt_ids"]).endswith("<|im_start|>assistant\n")
    begun = prepare_prompts([{"prompt": [USER, {"role": "assistant", "content": "it is"}]}], tokenizer)[0][0]
    assert tokenizer.decode(begun["prompt_ids"]).endswith("<|im_start|>assistant\nit is")


def test_long_and_empty_prompts_are_counted(tokenizer):
    rows = ["is it good ?", "is", ""]
    kept, report = prepare_prompts(rows, tokenizer, max_length=2)
    assert [row["prompt"] for row in kept] == ["is"]
    assert report.reasons == {"longer than the prompt may be": 1, "empty prompt": 1}
    cut, report = prepare_prompts(rows, tokenizer, max_length=2, over_length="keep_end")
    assert cut[0]["prompt_ids"] == tokenizer("is it good ?")["input_ids"][-2:]
    assert (report.rows_cut, report.rows_dropped) == (1, 1)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"choosen": "a", "rejected": "b"}], ["'choosen' → 'chosen'", "`chosen` + `rejected`"]),
        ([{"chosen": "a"}], ["Found columns: ['chosen']"]),
        ([{"chosen": "a", "rejected": "b", "question": "c", "query": "d"}], ["['question', 'query']"]),
        ([{"chosen": "a", "rejected": 4}], ["row 0", "`rejected` must be a string"]),
        ([{"chosen": "a", "rejected": "a"}] * 2, ["chosen and rejected are the same", "none of the 2 rows"]),
        ([{"chosen": "a", "rejected": "b", "margin": float("nan")}], ["`margin` must be a finite number"]),
        (
            [{"chosen": "a", "rejected": "b", "margin": "big"}],
            ["`margin` must be a finite number, found 'big'"],
        ),
        (["a", "b"], ["Found columns: ['chosen']"]),
        ([{"chosen_input_ids": [1, 2], "rejected_input_ids": []}], ["an answer is empty"]),
    ],
)
def test_malformed_pairs_are_explained(rows, says, tokenizer):
    with pytest.raises(ValueError, match="train_dataset") as error:
        prepare_pairs(rows, tokenizer)
    assert [part for part in says if part not in str(error.value)] == []


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"promtp": "a"}], ["'promtp' → 'prompt'"]),
        ([{"question": "a", "query": "b"}], ["More than one column can be the prompt"]),
        ([{"prompt": 4}], ["`prompt` must be a string"]),
        ([{"prompt": ""}], ["empty prompt"]),
    ],
)
def test_malformed_prompts_are_explained(rows, says, tokenizer):
    with pytest.raises(ValueError, match="train_dataset") as error:
        prepare_prompts(rows, tokenizer)
    assert [part for part in says if part not in str(error.value)] == []
