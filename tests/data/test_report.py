"""What became of the rows, counted before the first step."""

import datasets
import pytest

from trellis.data import prepare_language_modeling, prepare_pairs

SHORT, LONG = {"prompt": "is", "completion": " it"}, {"prompt": "is it good ? " * 9, "completion": " yes"}


@pytest.mark.parametrize("container", [list, datasets.Dataset.from_list])
@pytest.mark.parametrize("bad", [0, 1, 5])
def test_counts(container, bad, tokenizer):
    rows = [LONG] * bad + [SHORT] * (10 - bad)
    prepared, report = prepare_language_modeling(container(rows), tokenizer, max_length=8)
    assert (report.rows_in, report.rows_kept, report.rows_cut, report.rows_dropped) == (10, 10 - bad, 0, bad)
    assert len(prepared) == 10 - bad
    assert report.reasons == ({"every trained token was cut": bad} if bad else {})
    assert report.trained == (2, 2, 2)
    assert [i for i, _ in report.worst] == list(range(min(bad, 3)))


def test_nothing_left_is_an_error_that_names_the_length(tokenizer):
    needed = len(tokenizer(LONG["prompt"])["input_ids"]) + 1
    with pytest.raises(
        ValueError, match=f"none of the 10 rows .*max_length=8.*Write max_length={needed}"
    ) as error:
        prepare_language_modeling([LONG] * 10, tokenizer, max_length=8)
    assert "10 × every trained token was cut" in str(error.value)
    assert prepare_language_modeling([LONG], tokenizer, max_length=needed)[1].trained == (1, 1, 1)
    with pytest.raises(ValueError, match="none of the 1 rows"):
        prepare_language_modeling([LONG], tokenizer, max_length=needed - 1)


def test_keep_end_needs_no_longer_rows(tokenizer):
    prepared, report = prepare_language_modeling([LONG], tokenizer, max_length=3, truncation_mode="keep_end")
    assert (report.rows_cut, report.rows_dropped) == (1, 0)
    assert prepared[0]["input_ids"][-1] == tokenizer.eos_token_id


def test_all_pairs_too_long(tokenizer):
    with pytest.raises(ValueError, match=r"2 × longer than max_length.*max_length="):
        prepare_pairs([{"chosen": "it is good", "rejected": "it is bad"}] * 2, tokenizer, max_length=2)


def test_the_line_and_the_table(tokenizer):
    _, report = prepare_language_modeling([LONG, SHORT, SHORT], tokenizer, max_length=8, name="eval_dataset")
    assert report.line == (
        "eval_dataset: 3 rows, 2 kept, 0 cut, 1 dropped; trained tokens per row 2 / 2 / 2 (min / median / max); "
        "100% end in a trained stop token"
    )
    assert "every trained token was cut" in str(report)
    assert "row 0" in str(report)


def test_dropped_rows_are_logged_as_a_warning(tokenizer, caplog):
    prepare_language_modeling([SHORT], tokenizer, max_length=8)
    assert caplog.messages == []
    prepare_language_modeling([LONG, SHORT], tokenizer, max_length=8)
    assert "1 dropped" in caplog.text


def test_a_stream_is_sampled_and_filtered(tokenizer):
    stream = datasets.Dataset.from_list([LONG, SHORT] * 50).to_iterable_dataset()
    prepared, report = prepare_language_modeling(stream, tokenizer, max_length=8)
    assert report.sampled
    assert (report.rows_in, report.rows_dropped) == (32, 16)
    assert report.line.startswith("train_dataset: first 32 rows of a stream")
    assert sum(1 for _ in prepared) == 50


def test_trained_tokens_least_median_most(tokenizer):
    rows = [{"input_ids": list(range(5, 6 + n))} for n in (9, 1, 2, 4)]
    _, report = prepare_language_modeling(rows, tokenizer, max_length=8)
    assert report.trained == (1, 3.0, 7)
    assert (report.rows_cut, report.worst) == (1, [(0, "2 tokens cut")])
