"""Labelled answers: formats, limits, pairs taken apart, and who gets whose answer."""

import pytest
import torch
from datasets import Dataset

from tests.builders import tiny_tokenizer
from trellis.data.unpaired import (
    LabelledAnswers,
    as_labelled,
    collate_unpaired,
    derangement,
    prepare_unpaired,
)

from .rows import NO, USER, YES

TOKENS = [
    {"prompt_ids": [10, 11], "completion_ids": [20 + i] * (i + 1), "label": i % 2 == 0} for i in range(5)
]


def prepared(rows, tokenizer=None, **options):
    return prepare_unpaired(rows, tokenizer or tiny_tokenizer(), **options)[0]


def test_a_plain_row_ends_in_the_end_token(tokenizer):
    row = prepared([{"prompt": "it is", "completion": " very good", "label": True}], tokenizer)[0]
    assert tokenizer.decode(row["prompt_ids"]) == "it is"
    assert tokenizer.decode(row["completion_ids"]) == " very good</s>"
    assert row["label"] is True


def test_a_chat_is_rendered_by_the_template(tokenizer):
    rows = [{"prompt": [USER], "completion": [NO], "label": False}]
    row = prepared(rows, tokenizer)[0]
    assert tokenizer.decode(row["prompt_ids"] + row["completion_ids"]) == tokenizer.apply_chat_template(
        [USER, NO], tokenize=False
    )
    assert tokenizer.decode(row["completion_ids"]).startswith(NO["content"])


@pytest.mark.parametrize("kind", ["list", "dataset"])
def test_pairs_are_taken_apart(tokenizer, kind):
    rows = [{"prompt": f"{i} is", "chosen": " good", "rejected": " bad"} for i in range(3)]
    found = prepared(rows if kind == "list" else Dataset.from_list(rows), tokenizer)
    said = [tokenizer.decode(row["completion_ids"], skip_special_tokens=True) for row in found]
    assert said == [" good", " bad"] * 3
    assert [row["label"] for row in found] == [True, False] * 3
    assert [tokenizer.decode(row["prompt_ids"])[0] for row in found] == list("001122")
    assert isinstance(found, list) == (kind == "list")


def test_pairs_of_chats_and_of_tokens_are_taken_apart(tokenizer):
    assert len(prepared([{"prompt": [USER], "chosen": [YES], "rejected": [NO]}], tokenizer)) == 2
    tokens = {"prompt_ids": [9, 8], "chosen_ids": [7], "rejected_ids": [6, 5]}
    assert [row["completion_ids"] for row in prepared([tokens], tokenizer)] == [[7], [6, 5]]


def test_rows_of_tokens_stay_as_they_are():
    assert prepared(TOKENS) == TOKENS


def test_limits_cut_the_prompts_beginning_and_the_answers_end_and_are_counted():
    row = {"prompt_ids": list(range(10, 20)), "completion_ids": list(range(30, 40)), "label": True}

    def cut(**limits):
        rows, report = prepare_unpaired([row], tiny_tokenizer(), **limits)
        assert report.rows_cut == 1
        return rows[0]["prompt_ids"], rows[0]["completion_ids"]

    assert cut(max_prompt_length=3) == ([17, 18, 19], row["completion_ids"])
    assert cut(max_completion_length=2) == (row["prompt_ids"], [30, 31])
    assert cut(max_length=12) == ([18, 19], row["completion_ids"])
    assert cut(max_length=5) == ([19], [30, 31, 32, 33])
    assert cut(max_length=12, truncation_mode="keep_start") == (row["prompt_ids"], [30, 31])
    assert cut(max_length=12, max_prompt_length=4, truncation_mode="keep_start")[1] == list(range(30, 38))
    with pytest.raises(ValueError, match="no room for an answer.*Write max_length=11"):
        cut(max_length=10, truncation_mode="keep_start")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"prompt": "a", "completion": "b"}], "Expected: `prompt` \\+ `completion` \\+ `label`"),
        (
            [{"prompt": "a", "completion": "b", "label": "good"}],
            "row 0: `label` must be True .* found 'good'",
        ),
        ([{"prompt": "a", "completion": "b", "label": None}], "`label` must be True"),
        ([{"prompt": "a", "completion": "b", "label": True, "image": 1}], "these trainers read text only"),
        ([{"prompt_ids": [1], "completion_ids": [], "label": True}], "1 × an answer is empty"),
    ],
)
def test_what_cannot_be_read_is_one_message(rows, says):
    with pytest.raises(ValueError, match=says):
        prepared(rows)


def test_a_stream_is_refused_with_what_to_write():
    stream = Dataset.from_list(TOKENS).to_iterable_dataset()
    with pytest.raises(TypeError, match="found a stream.*from_list"):
        prepared(stream)


@pytest.mark.parametrize("count", range(2, 51))
def test_no_row_keeps_its_own_answer(count):
    for seed in range(5):
        partner = derangement(count, seed)
        assert sorted(partner) == list(range(count))
        assert all(i != j for i, j in enumerate(partner))


def test_who_gets_whose_answer_is_a_function_of_the_seed():
    torch.manual_seed(1)
    first = derangement(20, 7)
    torch.manual_seed(2)
    assert derangement(20, 7) == first != derangement(20, 8)
    with pytest.raises(ValueError, match="found 1 row, expected at least 2"):
        derangement(1, 0)


def test_mismatched_answers_are_those_of_the_partners_within_the_limit():
    data = LabelledAnswers(TOKENS, seed=3, max_length=5)
    for i, j in enumerate(data.partner):
        assert data[i]["mismatched_ids"] == TOKENS[j]["completion_ids"][:3]
        assert data[i]["completion_ids"] == TOKENS[i]["completion_ids"]
    assert "mismatched_ids" not in LabelledAnswers(TOKENS)[0]
    assert len(data) == 5


def test_a_batch_has_own_and_mismatched_rows_of_one_group():
    data = LabelledAnswers(TOKENS, seed=3)
    batch = collate_unpaired([data[i] for i in range(5)], pad=0)
    assert batch.label.tolist() == [True, False, True, False, True]
    assert batch.tokens.group.tolist() == [0, 1, 2, 3, 4] * 2
    assert batch.own().lengths.tolist() == [3, 4, 5, 6, 7]
    assert batch.mismatched().lengths.tolist() == [2 + 1 + j for j in data.partner]
    assert batch.own().loss_mask.sum(1).tolist() == [1, 2, 3, 4, 5]
    part = batch.rows(torch.tensor([3, 1]))
    assert torch.equal(part.mismatched().input_ids, batch.mismatched().rows(torch.tensor([3, 1])).input_ids)
    assert len(collate_unpaired([TOKENS[0]], pad=0).mismatched()) == 0


def test_known_reference_numbers_come_with_the_rows():
    data = LabelledAnswers(TOKENS, seed=3)
    data.ref_logps = torch.arange(10.0).view(5, 2)
    batch = collate_unpaired([data[1], data[4]], pad=0)
    assert batch.ref_logps.tolist() == [2.0, 8.0, 3.0, 9.0]
    assert batch.rows(torch.tensor([1])).ref_logps.tolist() == [8.0, 9.0]
    pair = data.as_pairs()[1]
    own = as_labelled(pair)
    assert (own["completion_ids"], own["mismatched_ids"]) == (
        data[1]["completion_ids"],
        data[1]["mismatched_ids"],
    )
