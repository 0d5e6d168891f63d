"""Ends, beginnings, seams and cuts."""

import pickle

import pytest

from tests.builders import tiny_tokenizer
from trellis.data import prepare_language_modeling, prepare_pairs
from trellis.data.formats import language_schema
from trellis.data.prepare import encoding
from trellis.data.source import map_rows
from trellis.data.tokenize import language_row, special_prefix

from .rows import one, one_pair, trained_text

LONG = {"prompt": "is it", "completion": " very good and easy to use"}


@pytest.mark.parametrize("field", ["text", "body"])
@pytest.mark.parametrize("end", ["", "</s>"])
def test_a_text_ends_in_one_end_token(field, end, tokenizer):
    row = one({field: "it is good" + end}, tokenizer, text_field=field)
    ids = row["input_ids"]
    assert ids.count(tokenizer.eos_token_id) == 1
    assert ids[-1] == tokenizer.eos_token_id
    assert row["loss_mask"] == [0] + [1] * (len(ids) - 1)


@pytest.mark.parametrize("end", ["", "</s>"])
def test_a_completion_ends_in_one_trained_end_token(end, pad_eos_tokenizer):
    row = one({"prompt": "is it", "completion": " good" + end}, pad_eos_tokenizer)
    assert row["input_ids"].count(pad_eos_tokenizer.eos_token_id) == 1
    assert (row["input_ids"][-1], row["loss_mask"][-1]) == (pad_eos_tokenizer.eos_token_id, 1)


def test_an_end_inside_a_text_stays_and_another_is_added(tokenizer):
    assert one({"text": "good</s>bad"}, tokenizer)["input_ids"].count(tokenizer.eos_token_id) == 2


@pytest.mark.parametrize("begin", ["", "<s>"])
@pytest.mark.parametrize("name", ["text", "pair", "completion"])
def test_a_beginning_is_written_once(begin, name):
    tokenizer = tiny_tokenizer(add_bos=True)
    assert special_prefix(tokenizer) == (tokenizer.bos_token_id,)
    if name == "text":
        rows = [one({"text": begin + "good"}, tokenizer)["input_ids"]]
    elif name == "completion":
        rows = [one({"prompt": begin + "is it", "completion": " good"}, tokenizer)["input_ids"]]
    else:
        pair = one_pair({"prompt": begin + "is it", "chosen": " good", "rejected": " bad"}, tokenizer)
        rows = [pair["prompt_ids"] + pair[side] for side in ("chosen_ids", "rejected_ids")]
    for ids in rows:
        assert ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1
        assert ids.count(tokenizer.eos_token_id) == 1


def test_a_tokenizer_without_end_token_adds_none():
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    assert one({"text": "good"}, tokenizer)["input_ids"] == tokenizer("good")["input_ids"]


def test_a_prompt_that_merges_with_the_completion_is_counted(tokenizer):
    rows = [{"prompt": "what ", "completion": "the answer"}, {"prompt": "what", "completion": " the answer"}]
    prepared, report = prepare_language_modeling(rows, tokenizer)
    assert report.seams_moved == 1
    assert prepared[0] == prepared[1]
    assert trained_text(prepared[0], tokenizer) == " the answer</s>"


@pytest.mark.parametrize("mode", ["keep_start", "keep_end"])
@pytest.mark.parametrize("difference", [-1, 0, 1])
def test_a_cut_at_the_boundary(mode, difference, tokenizer):
    whole = one(LONG, tokenizer)
    length = len(whole["input_ids"])
    prepared, report = prepare_language_modeling(
        [LONG], tokenizer, max_length=length + difference, truncation_mode=mode
    )
    cut = max(0, -difference)
    kept = slice(None, length - cut) if mode == "keep_start" else slice(cut, None)
    assert prepared[0]["input_ids"] == whole["input_ids"][kept]
    assert prepared[0]["loss_mask"][1:] == whole["loss_mask"][kept][1:]
    assert prepared[0]["prompt_len"] == whole["prompt_len"] - (cut if mode == "keep_end" else 0)
    assert report.rows_cut == cut
    assert report.stopped == (0.0 if cut and mode == "keep_start" else 1.0)


@pytest.mark.parametrize("difference", [-1, 0, 1])
def test_a_pair_is_dropped_at_the_boundary_never_cut(difference, tokenizer):
    rows = [{"chosen": "it is very good", "rejected": "it is bad"}, {"chosen": "yes", "rejected": "no"}]
    pair = prepare_pairs(rows, tokenizer)[0][0]
    length = len(pair["prompt_ids"]) + max(len(pair["chosen_ids"]), len(pair["rejected_ids"]))
    prepared, report = prepare_pairs(rows, tokenizer, max_length=length + difference)
    assert len(prepared) == report.rows_kept == (1 if difference < 0 else 2)
    assert report.rows_cut == 0
    assert difference < 0 or prepared[0] == pair


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_length": 0}, "max_length=0"),
        ({"truncation_mode": "keep_middle"}, "'keep_start' or 'keep_end'"),
        ({"packing": "tight"}, "'bfd', 'bfd_split', 'wrapped'"),
        ({"packing": "bfd"}, "max_length=None"),
        ({"completion_only": True}, "completion_only_loss=True needs `prompt`"),
        ({"assistant_only": True}, "assistant_only_loss=True needs conversations"),
        ({"formatting_func": lambda row: [row["text"]]}, "must return one string per row, found list"),
    ],
)
def test_an_impossible_wish_is_refused(options, says, tokenizer):
    with pytest.raises(ValueError, match=says):
        prepare_language_modeling(["it is good"], tokenizer, **options)


def test_a_row_function_can_be_sent_to_another_process(tokenizer):
    rows = [LONG]
    enc = encoding(tokenizer, language_schema(list(LONG)), rows, "train_dataset")
    function, sent = pickle.loads(pickle.dumps((language_row, enc)))
    first, second = (
        map_rows(rows, f, {"enc": e}, owner="x") for f, e in ((language_row, enc), (function, sent))
    )
    assert first == second
