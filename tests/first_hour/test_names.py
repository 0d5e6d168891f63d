"""Row 23: the names of the nine trainers."""

import warnings

import pytest

import trellis

from .page import promised
from .parts import METHODS


@pytest.mark.parametrize("method", METHODS)
def test_row_23_nine_trainers_import_without_a_warning(method):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(f"from trellis import {method}Config, {method}Trainer", found := {})
    assert found[f"{method}Trainer"] is getattr(trellis, f"{method}Trainer")


def test_row_23_the_place_where_ppo_was_moved_works_too():
    from trellis.experimental.ppo import PPOTrainer

    assert PPOTrainer is trellis.PPOTrainer


def test_row_23_a_slip_in_a_name_is_one_message():
    with pytest.raises(ImportError) as error:
        exec("from trellis import GRPOTrainr")
    assert str(error.value) == promised("23")
