"""Pairs within length limits: one identical prompt for both sides, and every cut token counted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import tiny_tokenizer
from trellis.data import prepare_pairs

TOKENIZER = tiny_tokenizer()
ROW = {"prompt_ids": [1, 2, 3, 4, 5, 6], "chosen_ids": [10, 11, 12, 13], "rejected_ids": [10, 21]}


def prepared(row=ROW, **limits):
    rows, report = prepare_pairs([row], TOKENIZER, **limits)
    return rows[0], report


@pytest.mark.parametrize(
    ("limits", "prompt", "chosen", "rejected", "cut"),
    [
        ({}, [1, 2, 3, 4, 5, 6], [10, 11, 12, 13], [10, 21], 0),
        ({"max_length": 10}, [1, 2, 3, 4, 5, 6], [10, 11, 12, 13], [10, 21], 0),
        ({"max_prompt_length": 2}, [5, 6], [10, 11, 12, 13], [10, 21], 4),
        ({"max_completion_length": 3}, [1, 2, 3, 4, 5, 6], [10, 11, 12], [10, 21], 1),
        (
            {"max_length": 9, "truncation_mode": "keep_end"},
            [2, 3, 4, 5, 6],
            [10, 11, 12, 13],
            [10, 21],
            1,
        ),
        (
            {"max_length": 9, "truncation_mode": "keep_start"},
            [1, 2, 3, 4, 5, 6],
            [10, 11, 12],
            [10, 21],
            1,
        ),
        ({"max_length": 3, "truncation_mode": "keep_end"}, [6], [10, 11], [10, 21], 7),
        (
            {"max_length": 5, "max_prompt_length": 2, "truncation_mode": "keep_start"},
            [5, 6],
            [10, 11, 12],
            [10, 21],
            5,
        ),
    ],
)
def test_what_is_cut(limits, prompt, chosen, rejected, cut):
    row, report = prepared(**limits)
    assert row == {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
    assert report.rows_cut == bool(cut)
    assert report.worst == ([(0, f"{cut} tokens cut")] if cut else [])


def test_boundaries_of_the_length():
    for max_length, dropped in ((9, True), (10, False), (11, False)):
        if dropped:
            with pytest.raises(
                ValueError, match=r"max_length=9 \(1 × longer than max_length\).*max_length=10"
            ):
                prepared(max_length=max_length)
        else:
            assert prepared(max_length=max_length)[1].rows_kept == 1


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"max_length": 6, "truncation_mode": "keep_start"}, r"no room for an answer.*Write max_length=8"),
        ({"max_length": 2, "truncation_mode": "keep_end"}, r"same after the cut.*Write max_length=3"),
        ({"max_completion_length": 1}, "same after the cut"),
        ({"max_prompt_length": 0}, "max_prompt_length=0"),
        ({"max_completion_length": -1}, "max_completion_length=-1"),
        ({"truncation_mode": "keep_middle"}, "keep_middle"),
    ],
)
def test_limits_that_leave_nothing_are_one_message(limits, says):
    with pytest.raises(ValueError, match=says):
        prepared(**limits)


ids = st.lists(st.integers(5, 20), min_size=1, max_size=12)
limit = st.none() | st.integers(1, 20)


@settings(max_examples=200, deadline=None)
@given(prompt=ids, chosen=ids, rejected=ids, total=limit, before=limit, after=limit, keep_end=st.booleans())
def test_limits_hold_and_cut_tokens_are_counted(prompt, chosen, rejected, total, before, after, keep_end):
    anchor = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}
    row = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
    limits = {"max_length": total and total + 1, "max_prompt_length": before, "max_completion_length": after}
    mode = "keep_end" if keep_end else "keep_start"
    rows, report = prepare_pairs([anchor, row], TOKENIZER, truncation_mode=mode, **limits)
    assert rows[0] == anchor
    if len(rows) == 1:
        return
    kept = rows[1]
    assert prompt[len(prompt) - len(kept["prompt_ids"]) :] == kept["prompt_ids"] != []
    for name in ("chosen_ids", "rejected_ids"):
        assert row[name][: len(kept[name])] == kept[name] != []
        assert total is None or len(kept["prompt_ids"]) + len(kept[name]) <= total + 1
    gone = sum(len(row[name]) - len(kept[name]) for name in row)
    assert report.worst == ([(1, f"{gone} tokens cut")] if gone else [])


def test_tools_of_the_config_reach_rows_without_their_own():
    user, yes, no = (
        {"role": r, "content": c} for r, c in (("user", "a"), ("assistant", "b"), ("assistant", "c"))
    )
    row = {"prompt": [user], "chosen": [yes], "rejected": [no]}
    tools = [{"type": "function", "function": {"name": "look"}}]
    plain, given, own = (
        prepare_pairs([r], TOKENIZER, tools=t)[0][0]["prompt_ids"]
        for r, t in ((row, None), (row, tools), ({**row, "tools": tools}, [{"name": "other"}]))
    )
    assert len(given) > len(plain)
    assert given == own


def test_images_are_refused():
    with pytest.raises(ValueError, match=r"found column 'images'.*remove_columns"):
        prepare_pairs([{"prompt": "a", "chosen": "b", "rejected": "c", "images": []}], TOKENIZER)
