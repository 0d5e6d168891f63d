"""Every format gives the ids of its canonical form, and what fits no format gives one clear error."""

import datasets
import numpy as np
import pytest

from trellis.data import prepare_language_modeling
from trellis.data.formats import language_schema, pair_schema, prompt_schema

from .rows import USER, YES, one

CHAT = {"messages": [USER, YES]}
PLAIN = {"prompt": "the battery", "completion": " lasts all day"}
SHAREGPT = [{"from": "human", "value": USER["content"]}, {"from": "gpt", "value": YES["content"]}]


@pytest.mark.parametrize(
    ("row", "canonical"),
    [
        ({"conversations": SHAREGPT}, CHAT),
        ({"conversations": [USER, YES]}, CHAT),
        ({"text": [USER, YES]}, CHAT),
        ({"messages": [{**USER, "name": None, "tool_calls": None}, YES]}, CHAT),
        ({"question": PLAIN["prompt"], "answer": PLAIN["completion"]}, PLAIN),
        ({"instruction": PLAIN["prompt"], "output": PLAIN["completion"]}, PLAIN),
        ({"query": PLAIN["prompt"], "response": PLAIN["completion"]}, PLAIN),
        ({"prompt": PLAIN["prompt"], "response": PLAIN["completion"]}, PLAIN),
        ({"prompt": [USER], "completion": YES["content"]}, {"prompt": [USER], "completion": [YES]}),
        ({"prompt": USER["content"], "completion": [YES]}, {"prompt": [USER], "completion": [YES]}),
        ({"prompt": SHAREGPT[:1], "completion": SHAREGPT[1:]}, {"prompt": [USER], "completion": [YES]}),
    ],
)
def test_a_format_equals_its_canonical_form(row, canonical, tokenizer):
    assert one(row, tokenizer) == one(canonical, tokenizer)


def test_ids_of_each_kind(tokenizer):
    ids = tokenizer("the battery lasts all day")["input_ids"]
    whole = one({"text": "the battery lasts all day"}, tokenizer)
    assert whole == {
        "input_ids": [*ids, tokenizer.eos_token_id],
        "loss_mask": [0] + [1] * len(ids),
        "prompt_len": 0,
    }
    completed, prompt = one(PLAIN, tokenizer), tokenizer(PLAIN["prompt"])["input_ids"]
    assert completed["input_ids"] == [*ids, tokenizer.eos_token_id]
    assert completed["prompt_len"] == len(prompt)
    assert completed["loss_mask"] == [0] * len(prompt) + [1] * (len(ids) + 1 - len(prompt))


@pytest.mark.parametrize(
    ("columns", "mask"),
    [
        ({}, [0, 1, 1, 1]),
        ({"labels": [-100, -100, 7, 8]}, [0, 0, 1, 1]),
        ({"completion_mask": [0, 0, 0, 1]}, [0, 0, 0, 1]),
        ({"completion_mask": [0, 1, 1, 1], "assistant_masks": [0, 0, 1, 1]}, [0, 0, 1, 1]),
        ({"loss_mask": [0, 0, 1, 0], "prompt_len": 2}, [0, 0, 1, 0]),
    ],
)
def test_token_rows_keep_their_ids(columns, mask, tokenizer):
    row = one({"input_ids": [5, 6, 7, 8], **columns}, tokenizer)
    assert (row["input_ids"], row["loss_mask"]) == ([5, 6, 7, 8], mask)


def test_token_rows_may_be_arrays_and_padded(tokenizer):
    row = {
        "input_ids": np.array([0, 0, 5, 6]),
        "attention_mask": [0, 0, 1, 1],
        "labels": np.array([-100, -100, 5, 6]),
    }
    assert one(row, tokenizer)["input_ids"] == [5, 6]


def test_completion_only_can_be_switched_off(tokenizer):
    row = one(PLAIN, tokenizer, completion_only=False)
    assert row["loss_mask"] == [0] + [1] * (len(row["input_ids"]) - 1)


@pytest.mark.parametrize("wrap", [list, datasets.Dataset.from_list, "stream"])
@pytest.mark.parametrize(
    "row", [CHAT, PLAIN, {"text": "good"}, {"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}]
)
def test_every_container_gives_the_same_rows(wrap, row, tokenizer):
    rows = [row] * 3
    data = datasets.Dataset.from_list(rows).to_iterable_dataset() if wrap == "stream" else wrap(rows)
    prepared, _ = prepare_language_modeling(data, tokenizer)
    assert list(prepared) == prepare_language_modeling(rows, tokenizer)[0]
    assert type(prepared) is type(data)


def test_a_list_of_strings_is_text(tokenizer):
    assert prepare_language_modeling(["good"], tokenizer)[0] == [one({"text": "good"}, tokenizer)]


def test_formatting_func_and_text_field(tokenizer):
    expected = one({"text": "is it good"}, tokenizer)
    assert (
        one({"a": "is it", "b": "good"}, tokenizer, formatting_func=lambda r: f"{r['a']} {r['b']}")
        == expected
    )
    assert (
        one({"body": "is it good", "prompt": "x", "completion": "y"}, tokenizer, text_field="body")
        == expected
    )


def test_what_was_mapped_is_said_once(tokenizer, caplog):
    caplog.set_level("INFO", logger="trellis")
    prepare_language_modeling([{"question": "a", "answer": "b"}] * 5, tokenizer)
    assert [m for m in caplog.messages if "read column 'question' as `prompt`" in m] == [caplog.messages[0]]


# ---- what fits nothing -------------------------------------------------------------------------------------------------

LANGUAGE_FAULTS = [
    (
        [{"txt": "a"}],
        ["Found columns: ['txt']", "`messages`", "'txt' → 'text'", "rename_column('txt', 'text')"],
    ),
    ([{"promt": "a", "completion": "b"}], ["'promt' → 'prompt'", "rename_column('promt', 'prompt')"]),
    ([{"message": [USER, YES]}], ["rename_column('message', 'messages')"]),
    ([{"label": 1}], ["Found columns: ['label']", "Expected: `text`"]),
    ([{"question": "a", "answer": "b", "instruction": "c", "output": "d"}], ["ambiguous", "formatting_func"]),
    ([{"instruction": "a", "input": "b", "output": "c"}], ["['input']", "ambiguous"]),
    ([{"text": "a"}, {"body": "b"}], ["row 1", "no column 'text'", "found ['body']"]),
    ([], ["found 0 rows"]),
    ([{"text": 3}], ["row 0", "`text` must be a string", "int 3"]),
    ([{"text": "a"}, {"text": None}], ["row 1", "NoneType"]),
    ([{"prompt": "a", "completion": 5}], ["`completion` must be a string"]),
    ([{"messages": "hello"}, {"messages": 7}], ["row 1", "expected a list of messages"]),
    ([{"messages": []}], ["row 0", "expected a list of messages"]),
    (
        [{"messages": [{"speaker": "a", "words": "b"}]}],
        ["needs `role` and `content`", "['speaker', 'words']"],
    ),
    ([{"conversations": [{"from": "narrator", "value": "x"}]}], ["unknown speaker 'narrator'", "'human'"]),
    ([{"input_ids": "a b"}], ["`input_ids` must be one list of integers"]),
    ([{"input_ids": [[1, 2], [3]]}], ["`input_ids` must be one list of integers"]),
    ([{"input_ids": [1, 2], "labels": [1]}], ["`labels` has 1 entries for 2"]),
    (
        [{"input_ids": [1, 2, 3], "labels": [2, 3, -100]}],
        ["differ from `input_ids` at position 0", "unshifted"],
    ),
    ([{"input_ids": [1, 2], "completion_mask": [1]}], ["`completion_mask` has 1 entries"]),
    ([{"input_ids": [1, 2, 3], "labels": [-100, -100, -100]}], ["none of the 1 rows", "no token to train"]),
]


@pytest.mark.parametrize(("rows", "says"), LANGUAGE_FAULTS)
def test_a_malformed_data_set_is_explained(rows, says, tokenizer):
    with pytest.raises(ValueError, match="train_dataset") as error:
        prepare_language_modeling(rows, tokenizer)
    assert [part for part in says if part not in str(error.value)] == []


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            datasets.DatasetDict(train=datasets.Dataset.from_list([{"text": "a"}])),
            ["splits ['train']", "dataset['train']"],
        ),
        ("data.jsonl", ["found str", "load_dataset"]),
        ((row for row in [{"text": "a"}]), ["found generator", "from_generator"]),
        ([1, 2], ["row 0 is int", "expected a dict"]),
        ([{"text": "a"}, "b"], ["row 0 is a dict but row 1 is str"]),
        (None, ["found NoneType"]),
    ],
)
def test_what_is_no_data_set_is_explained(data, says, tokenizer):
    with pytest.raises(TypeError, match="train_dataset") as error:
        prepare_language_modeling(data, tokenizer)
    assert [part for part in says if part not in str(error.value)] == []


@pytest.mark.parametrize("schema", [language_schema, pair_schema, prompt_schema])
def test_the_error_names_its_owner(schema):
    with pytest.raises(ValueError, match="^eval_dataset: no known data format"):
        schema(["zzz"], owner="eval_dataset")
