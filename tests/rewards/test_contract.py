"""Whatever a reward returns is a finite number per completion, or it is refused by name."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trellis.rewards import RewardError, RewardSet

IDS = [[5], [6, 6], [7, 7, 7]]
CALL = {"prompts": ["p"] * 3, "completions": ["first", "second", "third " * 30], "completion_ids": IDS}


def returning(value):
    def verdict(completions):
        return value

    return RewardSet(verdict)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1.0], "'verdict' returned 1 values for 3 completions"),
        ([1.0] * 4, "returned 4 values for 3 completions"),
        (1.0, r"returned 1.0; expected a list of 3 numbers"),
        (None, r"returned None \(NoneType\); expected a list of 3"),
        ({"a": 1}, r"\(dict\); expected a list of 3"),
        ("abc", r"'abc' \(str\); expected a list of 3"),
        (torch.tensor(1.0), "returned 1.0; expected a list of 3"),
        ([1.0, float("nan"), 1.0], "returned nan for completion 1, 'second'; expected a finite number.*None"),
        ([1.0, 1.0, float("inf")], "returned inf for completion 2, 'third third.*…'"),
        ([1.0, 1.0, -float("inf")], "returned -inf"),
        ([1.0, 1e39, 1.0], "returned 1e.39 for completion 1"),
        ([1.0, 10**400, 1.0], "completion 1, 'second'; expected a finite number"),
        ([1.0, "2.0", 1.0], r"returned '2.0' \(str\) for completion 1, 'second'; expected a number"),
        ([1.0, 1j, 1.0], r"\(complex\) for completion 1"),
        ([1.0, [1.0], 1.0], "returned 1 values for the 2 tokens of completion 1"),
        ([[1.0], [1.0, None], [1.0] * 3], r"returned None \(NoneType\) for completion 1"),
        ([[1.0], [1.0, float("nan")], [1.0] * 3], "returned nan for completion 1"),
        ([[1.0], [3e38, 3e38], [1.0] * 3], "returned 6e.38 for completion 1"),
        (torch.zeros(3, 3), "returned 3 values for the 1 tokens of completion 0"),
    ],
)
def test_what_is_no_reward_is_refused_with_what_was_found_and_expected(value, words):
    with pytest.raises(RewardError, match=words):
        returning(value)(**CALL)


@pytest.mark.parametrize(
    "value",
    [
        [1, 2, 3],
        (1.0, 2.0, 3.0),
        np.array([1, 2, 3]),
        torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16, requires_grad=True),
        [torch.tensor(1.0), np.float32(2), np.int64(3)],
        [True, Fraction(2), 3],
        [[1.0], np.array([0.5, 1.5]), torch.tensor([1, 1, 1])],
    ],
)
def test_numbers_of_every_kind_are_taken(value):
    assert returning(value)(**CALL).total.tolist() == [1.0, 2.0, 3.0]


def test_weights_cannot_push_a_total_beyond_float32():
    with pytest.raises(RewardError, match="exceed float32"):
        RewardSet(lambda completions: [3e38] * 3, weights=[10.0])(**CALL)


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.floats(), max_size=4),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=1)), max_size=3),
)


@settings(deadline=None, max_examples=300)
@given(value=st.one_of(anything, st.lists(anything, max_size=4), st.lists(anything, min_size=3, max_size=3)))
def test_a_result_is_finite_or_there_is_none(value):
    try:
        result = returning(value)(**CALL)
    except RewardError:
        return
    assert result.total.shape == (3,)
    assert result.total.isfinite().all()
    assert result.per_function.isnan()[:, 0].tolist() == [v is None for v in value]
    if result.per_token is not None:
        assert [len(t) for t in result.per_token] == [1, 2, 3]
        for tokens, total in zip(result.per_token, result.total.tolist(), strict=True):
            assert math.isclose(float(tokens.double().sum()), total, rel_tol=1e-5, abs_tol=1e33)
