"""Malformed data × trainers: one clear error before the first step, with the row, or success with every lost row counted."""

from __future__ import annotations

import logging
import re
import traceback
from pathlib import Path

import pytest

import trellis

from . import bad_parts, bad_rows
from .trainers import ROWS, build

TABLES = [
    table
    for module in (bad_rows, bad_parts)
    for name, table in vars(module).items()
    if name.isupper() and isinstance(table, list) and all(isinstance(c, bad_rows.Case) for c in table)
]
CASES = [case for table in TABLES for case in table]
HOME = Path(trellis.__file__).parent


def matrix(handled: bool) -> list[tuple[str, bad_rows.Case]]:
    return [
        (name, case)
        for name, (family, *_) in ROWS.items()
        for case in CASES
        if family in case.families and (case.says is None) == handled
    ]


def raised_by_us(error: BaseException) -> bool:
    return HOME in Path(traceback.extract_tb(error.__traceback__)[-1].filename).parents


@pytest.mark.parametrize(("name", "case"), matrix(handled=False), ids=str)
def test_a_malformed_input_is_one_clear_error(name, case, tmp_path):
    """Fault: more than 90 malformed data sets, each for every trainer it concerns: containers, columns, values, conversations,
    token ids, masks, labels, margins.
    Then: one error of ours before a model is touched: what was found, what was expected, the row."""
    family = ROWS[name][0]
    with pytest.raises((ValueError, TypeError)) as caught:
        build(name, tmp_path, case.make(family))
    message = str(caught.value)
    assert re.search(case.says, message, re.DOTALL), message
    assert raised_by_us(caught.value)
    assert "cannot be read (" not in message or "of 5" in message  # the last resort, for what nobody foresaw
    assert len(message) < 900


@pytest.mark.parametrize(("name", "case"), matrix(handled=True), ids=str)
def test_an_odd_input_is_handled_and_counted(name, case, tmp_path, caplog):
    """Fault: more than 15 odd data sets: empty, zero-width, right-to-left, huge, control characters, equal answers …
    Then: they are taken, and every row that was dropped or cut is counted in the report."""
    caplog.set_level(logging.INFO, logger="trellis")
    trainer = build(name, tmp_path, case.make(ROWS[name][0]))
    line = next(m for m in caplog.messages if m.startswith("train_dataset: ") and " kept, " in m)
    rows, kept, cut, dropped = map(int, re.findall(r"(\d+) (?:rows|kept|cut|dropped)", line))
    assert rows == kept + dropped
    limits = [getattr(trainer.args, limit, None) for limit in ("max_length", "max_prompt_length")]
    lost = cut + dropped if case.cut else dropped
    assert lost == (0 if case.cut and not any(limits) else case.lost)
    assert len(trainer.train_dataset) >= 1


def test_the_corpus_is_as_large_as_promised():
    refused = [case for case in CASES if case.says is not None]
    assert len(refused) > 90
    assert len(CASES) - len(refused) > 15
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_what_is_handled_trains(name, tmp_path):
    family, limits, _ = ROWS[name]
    rows = bad_rows.good(family)
    for case in (case for case in bad_rows.HANDLED if family in case.families):
        if not case.cut or "max_length" in limits:  # a huge prompt is PPO's to read
            rows.append(case.make(family)[bad_rows.BAD])
    trainer = build(name, tmp_path, rows, fresh=True, per_device_train_batch_size=8)
    trainer.train()
    losses = [entry["train_loss"] for entry in trainer.state.log_history if "train_loss" in entry]
    assert len(losses) == 1
    assert losses[0] == losses[0]
