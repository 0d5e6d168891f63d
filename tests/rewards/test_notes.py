"""What reward functions note beside their answers, and what passes through them untouched."""

import math

import numpy as np
import pytest
import torch

from trellis.rewards import RewardError, RewardSet

CALL = {"prompts": ["p", "q"], "completions": ["one", "three"], "completion_ids": [[1], [2, 2]]}


def noting(completions, log_extra, log_metric, *, column="length", metric="longest"):
    lengths = [len(c) for c in completions]
    log_extra(column, lengths)
    log_metric(metric, max(lengths))
    log_metric("always", torch.tensor(2.0))
    return lengths


async def later(completions, log_extra=None, **columns):
    log_extra("length", ("a", None))
    columns["log_metric"]("always", np.float32(4))
    return [0.0, 0.0]


def test_columns_and_numbers_are_kept():
    result = RewardSet(noting)(**CALL)
    assert result.extra == {"length": [3, 5]}
    assert result.logged == {"longest": [5.0], "always": [2.0]}
    assert RewardSet(lambda completions: [1, 2])(**CALL).extra == {}


@pytest.mark.parametrize("timeout", [None, 20])
def test_two_functions_with_the_same_names(timeout):
    result = RewardSet([noting, later], timeout=timeout)(**CALL)
    assert result.extra == {"length": [3, 5], "later/length": ["a", None]}
    assert result.logged == {"longest": [5.0], "always": [2.0, 4.0]}


@pytest.mark.parametrize(
    ("note", "words"),
    [
        (
            lambda log_extra: log_extra("x", [1]),
            r"log_extra\('x', …\) got 1 values; expected a column's name and a list of 2",
        ),
        (lambda log_extra: log_extra("x", "ab"), r"log_extra\('x', …\) got str"),
        (lambda log_extra: log_extra(3, [1, 2]), r"log_extra\(3"),
        (
            lambda log_metric: log_metric("x", "high"),
            r"log_metric\('x', 'high'\); expected a metric's name and a finite",
        ),
        (lambda log_metric: log_metric("x", math.nan), r"log_metric\('x', nan\)"),
        (lambda log_metric: log_metric(None, 1.0), r"log_metric\(None"),
    ],
)
def test_a_bad_note_is_a_failure_of_its_function(note, words):
    note.__name__ = "scribe"
    with pytest.raises(RewardError, match=f"^reward 'scribe': {words}"):
        RewardSet(note)(**CALL)
    assert RewardSet(note, on_error="skip")(**CALL).failures == {"scribe": 2}


def test_objects_in_columns_are_the_very_ones():
    class Environment:
        """Something that can be neither copied nor sent."""

        def __deepcopy__(self, memo):
            raise AssertionError("copied")

        def __reduce__(self):
            raise AssertionError("sent")

    given = [Environment(), Environment()]

    def judge(environments):
        return [float(a is b) for a, b in zip(environments, given, strict=True)]

    assert RewardSet(judge)(**CALL, columns={"environments": given}).total.tolist() == [1.0, 1.0]
    assert RewardSet(judge, timeout=20)(**CALL, columns={"environments": given}).total.tolist() == [1.0, 1.0]
