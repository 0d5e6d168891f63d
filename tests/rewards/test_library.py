"""The ready rewards, against tables worked out by hand."""

import math
import threading
from importlib.util import find_spec

import pytest

from trellis.rewards import (
    READY_REWARDS,
    RewardError,
    RewardSet,
    accuracy_reward,
    get_cosine_scaled_reward,
    get_repetition_penalty_reward,
    get_soft_overlong_punishment,
    isolated,
    reasoning_accuracy_reward,
    think_format_reward,
)

EXPRESSIONS = find_spec("math_verify") is not None
RIGHT = [
    ("the answer is 42.", "#### 42"),
    ("#### 42", "Tom has 40 + 2 = 42 apples.\n#### 42"),
    ("so 1,000 in all", "1000"),
    ("1000", "#### 1,000"),
    ("The total: 3,456,789 people", "3456789"),
    (r"\boxed{1{,}000}", "1000"),
    ("1/2", "0.5"),
    ("0.50", "1/2"),
    (r"\boxed{\frac{1}{2}}", "0.5"),
    (r"it is $\dfrac12$", r"\frac{1}{2}"),
    (r"\boxed{-\frac{3}{4}}", "-0.75"),
    (r"\boxed{1\frac{1}{2}}", "1.5"),
    ("#### 1 1/2", "3/2"),
    ("50%", "0.5"),
    ("50%", "50"),
    ("0.5", "50%"),
    (r"\boxed{50\%}", "1/2"),
    ("5 percent", "5%"),
    ("-3", "-3"),
    ("it is −3.", "-3"),
    ("10-5", "5"),
    (r"\boxed{5\text{ cm}}", "5"),
    ("5 cm", "5"),
    ("#### 12 m/s", "12"),
    (r"\boxed{5\,\mathrm{m}^2}", "5 m^2"),
    ("it costs $3.50", "3.5"),
    ("-$5", "-5"),
    (r"\boxed{\$1,234.50}", "$1234.50"),
    (r"\boxed{90^\circ}", "90"),
    (r"\boxed{x = 5}", "5"),
    ("3 + 4 = 7", "7"),
    (r"\boxed{7}, and not 8", "7"),
    ("#### 7\nI tried 8 too", "7"),
    (r"first \boxed{1}, no: \boxed{2}", "2"),
    (r"\boxed{1} and finally" + "\n#### 2", "2"),
    (r"\boxed{2\times 10^{3}}", "2000"),
    ("2e3", "2000"),
    (".5", "0.5"),
    ("**42**", "42"),
    (r"\boxed{\text{42}}", "42"),
    (r"\boxed{42", "42"),  # cut before it was closed
    (r"\(5\)", "$5$"),
]
WRONG = [
    ("41", "42"),
    ("3", "-3"),
    ("10-5", "-5"),
    ("5%", "50%"),
    ("1/3", "0.333"),
    ("no number", "5"),
    ("", "5"),
    (r"\boxed{}", "5"),
    (r"\boxed{A}", "5"),
    (r"\boxed{1,2,3}", "3"),
    (r"\boxed{3 or 4}", "3"),
    (r"\boxed{5 million}", "5"),
    (r"\boxed{5x}", "5"),
    ("x2", "2"),
    ("#### none", "5"),
    ("1/0", "1"),
    ("1e99999999", "5"),
    ("9" * 6000, "5"),
]
BEYOND = [
    (r"\boxed{1 + x}", r"\boxed{x + 1}", 1.0),
    (r"\boxed{x^2}", "x^3", 0.0),
    (r"the roots are \boxed{\{1, 2\}}", r"\{2, 1\}", 1.0),
]


@pytest.mark.parametrize(("text", "reference"), RIGHT)
def test_a_right_answer(text, reference):
    assert accuracy_reward([text], [reference]) == [1.0]
    assert accuracy_reward([[{"role": "assistant", "content": text}]], answer=[reference]) == [1.0]


@pytest.mark.parametrize(("text", "reference"), WRONG)
def test_a_wrong_answer(text, reference):
    assert accuracy_reward([text], [reference]) == [0.0]


@pytest.mark.parametrize(("text", "reference", "verdict"), BEYOND)
def test_expressions_are_compared_where_math_verify_is_installed(text, reference, verdict):
    assert accuracy_reward([text], [reference]) == [verdict if EXPRESSIONS else None]
    found = []
    thread = threading.Thread(target=lambda: found.extend(accuracy_reward([text], [reference])))
    thread.start()
    thread.join()
    assert found == [verdict if EXPRESSIONS else None]


def test_an_expression_for_a_number():
    assert accuracy_reward([r"\boxed{\sqrt{16}}"], ["4"]) == [1.0 if EXPRESSIONS else 0.0]


def test_rows_without_a_reference_do_not_apply():
    assert accuracy_reward(["4", "5", "6"], [None, "", 6], answer=["4", "5", "7"]) == [1.0, None, 1.0]
    assert accuracy_reward(["4", "0.25"], answer=[4, 0.25]) == [1.0, 1.0]


def test_what_degenerate_texts_cost():
    """Quadratic reading of any of these would take minutes."""
    for text in (
        r"\boxed{" * 20000,
        "{" * 100000,
        "1 " * 50000,
        " " * 100000,
        "1" * 100000,
        r"\text{" * 20000,
        "-$" * 50000,
    ):
        assert accuracy_reward([text], ["42"]) == [0.0]


def test_the_column_is_asked_for_before_anything_is_sampled():
    for name in ("accuracy", "reasoning_accuracy", "cosine_scaled(max_len=8)"):
        with pytest.raises(
            RewardError, match="needs a column 'solution' or 'answer', found the columns .'level'."
        ):
            RewardSet(name).check(["level"])
        RewardSet(name).check(["answer"])
    with pytest.raises(ValueError, match="neither"):
        accuracy_reward(["4"])


def test_only_what_follows_the_reasoning_counts():
    completions = [
        "<think>1</think> 2",
        "<think>2</think> 1",
        "<think>2",
        "2",
        "<think>1</think> no </think> 2",
        [{"role": "assistant", "content": "2</think>"}, {"role": "assistant", "content": "x</think>2"}],
    ]
    assert reasoning_accuracy_reward(completions, ["2"] * 6) == [1.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    assert reasoning_accuracy_reward(["1 DONE 2", "2"], ["2", "2"], reasoning_delimiters=["DONE"]) == [
        1.0,
        0.0,
    ]
    assert reasoning_accuracy_reward(["<think>"], [""]) == [None]


def test_the_answer_that_was_found_is_noted():
    call = {"prompts": ["p"] * 4, "completion_ids": [[1]] * 4, "columns": {"answer": ["2"] * 4}}
    texts = [r"\boxed{ x = 2 }", "so 1, 2", "none", "50%"]
    result = RewardSet("accuracy")(**call, completions=texts)
    assert result.total.tolist() == [1, 1, 0, 0]
    assert result.extra == {"final_answer": ["x = 2", "2", None, "50%"]}


def test_think_format():
    texts = {
        "<think>a</think>b": 1,
        "<think>\na\n</think>\nb": 1,
        "<think></think>": 1,
        "<think>a": 0,
        "a</think>b": 0,
        " <think>a</think>": 0,
        "<think>a<think>b</think>": 0,
        "<think>a</think><think>b</think>": 0,
        "": 0,
    }
    assert think_format_reward(list(texts)) == list(texts.values())
    assert think_format_reward([[{"role": "assistant", "content": text}] for text in texts]) == list(
        texts.values()
    )
    parts = [{"type": "text", "text": "<think>a"}, {"type": "text", "text": "</think>b"}]
    assert think_format_reward([[{"role": "assistant", "content": parts}], []]) == [1, 0]


def test_soft_overlong_punishment():
    reward = get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)
    lengths = {0: 0, 80: 0, 81: -0.05, 90: -0.5, 100: -1, 101: -1, 500: -1}
    assert reward([[1] * n for n in lengths]) == list(lengths.values())
    assert get_soft_overlong_punishment(10, 0)([[1] * 10, [1] * 11]) == [0, -1]
    assert reward.__name__ == "soft_overlong_punishment_reward"


def test_cosine_scaled():
    reward = get_cosine_scaled_reward(max_len=100)
    ids = [[1] * n for n in (0, 50, 100, 300)]
    half = 0.25 * math.sqrt(0.5)
    assert reward(["7"] * 4, ["7"] * 4, ids) == pytest.approx([1.0, 0.75, 0.5, 0.5])
    assert reward(["8"] * 4, ["7"] * 4, ids) == pytest.approx([-1.0, -0.75, -0.5, -0.5])
    assert reward(["7", "8"], ["7", "7"], [[1] * 25] * 2) == pytest.approx([0.75 + half, -0.75 - half])
    assert reward(["7"], [None], [[1]]) == [None]
    other = get_cosine_scaled_reward(
        10, min_value_wrong=-4, max_value_wrong=0, min_value_correct=2, max_value_correct=6
    )
    assert other(["7", "8"], answer=["7", "7"], completion_ids=[[1] * 5] * 2) == pytest.approx([4, -2])


def test_repetition_penalty():
    assert get_repetition_penalty_reward(ngram_size=2)([[1, 2, 3, 4], [5] * 5]) == [0.0, -0.75]
    assert get_repetition_penalty_reward()([[], [1, 2], [1, 2, 3], [1, 2, 1, 2, 1]]) == pytest.approx(
        [0, 0, 0, -1 / 3]
    )
    assert get_repetition_penalty_reward(1, -3.0)([[1, 1, 1]]) == [-2.0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: get_soft_overlong_punishment(10, 11),
        lambda: get_soft_overlong_punishment(0, 0),
        lambda: get_cosine_scaled_reward(0),
        lambda: get_repetition_penalty_reward(0),
        lambda: get_repetition_penalty_reward(3, 1.0),
        lambda: get_repetition_penalty_reward(3, math.nan),
    ],
)
def test_impossible_arguments_are_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()


def test_all_of_them_together_by_name():
    named = ["accuracy_reward", "think_format", "repetition_penalty", "cosine_scaled(max_len=4)"]
    named.append("get_soft_overlong_punishment(max_completion_len=2, soft_punish_cache=1)")
    rewards = RewardSet([*named, isolated(get_repetition_penalty_reward(1))])
    assert rewards.names == [
        "accuracy_reward",
        "think_format_reward",
        "repetition_penalty_reward",
        "cosine_scaled_reward",
        "soft_overlong_punishment_reward",
        "repetition_penalty_reward_2",
    ]
    assert set(READY_REWARDS) == {name.removesuffix("_reward") for name in rewards.names[:5]} | {
        "reasoning_accuracy"
    }
    result = rewards(
        prompts=["p"] * 2,
        completions=["7", "8"],
        completion_ids=[[1, 1, 1, 1], [3]],
        columns={"solution": ["7"] * 2},
    )
    half = 0.25 * (1 + math.cos(math.pi / 4))
    assert result.per_function[0].tolist() == pytest.approx([1, 0, -0.5, 0.5, -1, -0.75])
    assert result.per_function[1].tolist() == pytest.approx([0, 0, 0, -0.5 - half, 0, 0], abs=1e-6)
