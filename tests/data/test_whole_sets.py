"""Data sets as wholes by TRL's names: pairs taken apart, prompts found, rows cut and packed as SFT packs them."""

import pytest
from datasets import Dataset, DatasetDict, IterableDataset

from trellis.data import prepare_language_modeling
from trellis.data.whole_sets import (
    extract_prompt,
    maybe_extract_prompt,
    maybe_unpair_preference_dataset,
    pack_dataset,
    truncate_dataset,
    unpair_preference_dataset,
)

ASK = [{"role": "user", "content": "which colour ?"}]
BLUE, GREEN = ([{"role": "assistant", "content": word}] for word in ("blue", "green"))
PAIRS = [
    {"prompt": "the sky is", "chosen": " blue", "rejected": " green", "id": 1},
    {"prompt": "the sun is", "chosen": " hot", "rejected": " cold", "id": 2},
]
TOKENS = [{"input_ids": ids, "marks": [i % 2 for i in ids]} for ids in ([1, 2, 3], [4, 5, 6, 7], [8])]


def as_stream(rows):
    return IterableDataset.from_generator(lambda: iter(rows))


KINDS = [list, Dataset.from_list, as_stream]


def test_the_prompt_is_what_both_answers_begin_with():
    expected = {"prompt": "the sky is", "chosen": " blue", "rejected": " green"}
    assert extract_prompt({"chosen": "the sky is blue", "rejected": "the sky is green"}) == expected
    expected = {"prompt": ASK, "chosen": BLUE, "rejected": GREEN}
    assert extract_prompt({"chosen": ASK + BLUE, "rejected": ASK + GREEN}) == expected
    assert extract_prompt({"chosen": "ab", "rejected": "ab c"}) == {
        "prompt": "a",
        "chosen": "b",
        "rejected": "b c",
    }
    assert extract_prompt({"chosen": "a", "rejected": "b"})["prompt"] == ""


def test_only_a_pair_without_its_prompt_is_changed():
    implicit = {"chosen": ASK + BLUE, "rejected": ASK + GREEN, "margin": 1.0}
    found = maybe_extract_prompt(implicit)
    assert found == {"prompt": ASK, "chosen": BLUE, "rejected": GREEN, "margin": 1.0}
    assert maybe_extract_prompt(found) is found
    assert maybe_extract_prompt(PAIRS[0]) is PAIRS[0]
    assert maybe_extract_prompt({"prompt": "which colour ?", **implicit})["prompt"] == ASK
    assert maybe_extract_prompt({"prompt": "a"}) == {"prompt": "a"}


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_become_labelled_answers(kind):
    rows = list(unpair_preference_dataset(kind(PAIRS)))
    assert [row["completion"] for row in rows] == [" blue", " hot", " green", " cold"]
    assert [row["label"] for row in rows] == [True, True, False, False]
    assert [row["id"] for row in rows] == [1, 2, 1, 2]
    assert set(rows[0]) == {"prompt", "completion", "label", "id"}
    assert list(maybe_unpair_preference_dataset(kind(PAIRS))) == rows


def test_splits_are_taken_apart_each():
    splits = DatasetDict({"train": Dataset.from_list(PAIRS), "test": Dataset.from_list(PAIRS[:1])})
    found = maybe_unpair_preference_dataset(splits, num_proc=1, desc="pairs")
    assert [len(found["train"]), len(found["test"])] == [4, 2]
    assert maybe_unpair_preference_dataset(found) is found


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_packed_and_cut(kind):
    found = list(pack_dataset(kind(TOKENS), 4))
    assert [row["input_ids"] for row in found] == [[4, 5, 6, 7], [1, 2, 3, 8]]
    assert [row["seq_lengths"] for row in found] == [[4], [3, 1]]
    assert [row["marks"] for row in found] == [[0, 1, 0, 1], [1, 0, 1, 0]]
    wrapped = list(pack_dataset(kind(TOKENS), 3, "wrapped"))
    assert [row["input_ids"] for row in wrapped] == [[1, 2, 3], [4, 5, 6], [7, 8]]
    assert "seq_lengths" not in wrapped[0]
    assert [r["input_ids"] for r in truncate_dataset(kind(TOKENS), 2)] == [[1, 2], [4, 5], [8]]


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_rows_that_are_shown_as_tensors_are_cut_too(kind):
    shown = Dataset.from_list([{**row, "id": i} for i, row in enumerate(TOKENS)]).with_format(kind)
    cut = truncate_dataset(shown, 2).with_format(None)
    assert cut["input_ids"][:] == [[1, 2], [4, 5], [8]]
    assert cut["id"][:] == [0, 1, 2]
    square = Dataset.from_list([{"input_ids": [1, 2, 3], "id": 1}] * 2).with_format(kind)
    assert truncate_dataset(square, 2).with_format(None)["input_ids"][:] == [[1, 2]] * 2
    assert pack_dataset(square, 6).with_format(None)["input_ids"][:] == [[1, 2, 3, 1, 2, 3]]


def test_nothing_and_texts_cannot_be_packed():
    assert pack_dataset([], 4) == []
    with pytest.raises(ValueError, match="tokenize the rows first"):
        pack_dataset([{"text": "a"}], 4)


def test_rows_are_packed_in_blocks_and_other_columns_go():
    rows = Dataset.from_list([{**row, "id": 1, "text": "a"} for row in TOKENS])
    found = pack_dataset(rows, 4, "bfd_split", map_kwargs={"batch_size": 2})
    assert found["seq_lengths"] == [[4], [3], [1]]
    assert found.column_names == ["input_ids", "marks", "seq_lengths"]
    cut = truncate_dataset(rows, 2)
    assert cut["text"] == ["a"] * 3
    with pytest.raises(ValueError, match="expected one of"):
        pack_dataset(rows, 4, "ffd")


@pytest.mark.parametrize("strategy", ["bfd", "bfd_split", "wrapped"])
def test_packing_is_what_sft_does(tokenizer, strategy):
    texts = [
        "the battery lasts all day",
        "it is",
        "is easy to use and the price is great . " * 3,
        "very good",
    ]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    rows = [{"input_ids": one, "labels": one} for one in ids]
    ours = pack_dataset(rows, 16, strategy)
    trained, _ = prepare_language_modeling(rows, tokenizer, max_length=16, packing=strategy)
    assert [row["input_ids"] for row in ours] == [row["input_ids"] for row in trained]
    if strategy != "wrapped":
        assert [row["seq_lengths"] for row in ours] == [row["seq_lengths"] for row in trained]
        again, _ = prepare_language_modeling(ours, tokenizer, max_length=16)
        assert [row["seq_lengths"] for row in again] == [row["seq_lengths"] for row in trained]
