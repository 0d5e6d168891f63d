"""The benchmarks compare what they say they compare."""

import time

import torch

from benchmarks import rollout, scoring
from benchmarks.measure import Case, compare


def test_a_slower_and_hungrier_side_shows():
    def plain():
        grown = torch.ones(8_000_000)
        end = time.process_time() + 0.05
        while time.process_time() < end:
            grown.sum()

    row = compare(Case("toy", plain, lambda: torch.ones(10)), repeats=3)
    assert row.ratio < 0.5
    assert row.plain_seconds >= 0.05
    assert row.plain_memory > row.our_memory + 20


def test_every_case_runs_on_both_sides():
    cases = [*scoring.cases(), *rollout.cases()]
    for case in cases:
        case.plain()
        case.ours()
    assert len({case.name for case in cases}) == len(cases)
