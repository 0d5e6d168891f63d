"""What a text in reward_funcs means."""

import os
import sys

import pytest

from trellis.rewards import RewardSet, accuracy_reward
from trellis.rewards.library import RepetitionPenalty
from trellis.rewards.names import named

CALL = {"prompts": ["p"], "completions": ["four"], "completion_ids": [[1]]}


@pytest.fixture
def working_in():
    """Change the working directory, and the import path back."""
    before, path = os.getcwd(), list(sys.path)
    yield os.chdir
    os.chdir(before)
    sys.path[:] = path


def test_names_of_ready_rewards():
    for name in ("accuracy", "accuracy_reward", " accuracy ", "accuracy()"):
        assert named(name) is accuracy_reward
    for name in ("repetition_penalty", "get_repetition_penalty_reward", "repetition_penalty()"):
        assert named(name) == RepetitionPenalty(3, -1.0)
    assert named("repetition_penalty(ngram_size=2, max_penalty=-0.5)") == RepetitionPenalty(2, -0.5)


def test_a_dotted_name_is_imported():
    assert named("tests.rewards.misbehaving.length")(["ab"]) == [2.0]
    assert RewardSet("tests.rewards.misbehaving.length")(**CALL).total.tolist() == [4.0]


def test_a_module_in_the_working_directory_is_found(tmp_path, working_in):
    working_in(tmp_path)
    (tmp_path / "rewards_of_mine.py").write_text(
        "def short(completions):\n    return [-1.0] * len(completions)\n"
    )
    assert RewardSet("rewards_of_mine.short")(**CALL).total.tolist() == [-1.0]


def test_other_texts_are_names_of_classifiers(tmp_path, working_in):
    working_in(tmp_path)
    (tmp_path / "accuracy").mkdir()
    for name in ("org/reward-model", "org/reward.v2", "reward-model.v2", "pythia", "accuracy", str(tmp_path)):
        assert named(name) == name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "acuracy",
            "'acuracy' is no ready reward, no path and no function. Did you mean 'accuracy'. Ready ones: accuracy, ",
        ),
        ("think_fromat_reward", "Did you mean 'think_format'"),
        ("something(a=1)", "no function. Ready ones: accuracy"),
        ("cosine_scaled", r"'max_len'; expected cosine_scaled\(max_len=…, min_value_wrong=-1.0, "),
        ("cosine_scaled(max_length=3)", r"'max_length'; expected cosine_scaled\(max_len="),
        ("cosine_scaled(3)", "arguments are given by name"),
        ("cosine_scaled(max_len=open('x'))", r"expected cosine_scaled\("),
        ("cosine_scaled(max_len=)", r"expected cosine_scaled\("),
        ("cosine_scaled(max_len=0)", r"max_len=0; expected a number of tokens > 0; expected cosine_scaled"),
        ("accuracy(x=1)", "accuracy takes no arguments; write 'accuracy'"),
        ("tests.rewards.misbehaving.nothing", "has no attribute 'nothing'; expected package.module.function"),
        ("tests.rewards.missing.length", "No module named 'tests.rewards.missing'"),
        ("tests.rewards.misbehaving.CALLS", "is list; expected a function"),
    ],
)
def test_what_names_nothing_is_refused(name, words):
    with pytest.raises(ValueError, match=words):
        RewardSet(name)
