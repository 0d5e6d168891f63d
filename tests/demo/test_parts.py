"""The demo's parts: rows shared out without overlap, an honest judge, a run of every stage that leaves what it promises."""

from __future__ import annotations

import json

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from trellis.cli import main
from trellis.demo import data, run_demo
from trellis.demo.judge import accuracy, train_judge
from trellis.demo.measure import distinct_bigrams
from trellis.monitor import read_history


def test_the_judges_rows_are_used_for_nothing_else():
    rows = data.load()
    judged = {row["text"] for row in rows.judge}
    trained = {row["text"] for row in rows.texts} | {t for pair in rows.pairs for t in pair.values()}
    tested = {t["text"] for t in rows.judge_test} | {row["text"] for row in rows.held_out}
    tested |= {t for pair in rows.pairs_test for t in pair.values()}
    assert not judged & trained
    assert not tested & (judged | trained)
    assert not {row["prompt"] for row in rows.prompts} & {row["prompt"] for row in rows.prompts_test}


def test_the_judge_is_right_and_can_be_wrong():
    rows = data.load()
    assert accuracy(train_judge(rows.judge), rows.judge_test) > 0.92
    turned = [{**row, "label": 1 - row["label"]} for row in rows.judge]
    assert accuracy(train_judge(turned), rows.judge_test) < 0.08


def test_distinct_pairs_of_words():
    assert distinct_bigrams(["a b c", "d e"]) == 1
    assert distinct_bigrams(["a b a b a"]) == 0.5
    assert distinct_bigrams(["one"]) == 0


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    return run_demo(tmp_path_factory.mktemp("demo"), updates=2, epochs=0.05, quiet=True)


def test_the_three_directories_load_in_stock_transformers(short):
    for name, kind in (
        ("sft", AutoModelForCausalLM),
        ("reward", AutoModelForSequenceClassification),
        ("ppo", AutoModelForCausalLM),
    ):
        model, tokenizer = (
            kind.from_pretrained(short.output / name),
            AutoTokenizer.from_pretrained(short.output / name),
        )
        assert model(**tokenizer("Easy to use", return_tensors="pt")).logits.isfinite().all()
        assert read_history(short.output / name)


def test_what_else_is_left(short):
    assert (short.output / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((short.output / "result.json").read_text()) == json.loads(json.dumps(short.figures()))


def test_the_policy_that_ppo_starts_from_has_no_kl_to_itself(short):
    assert short.before.kl == 0
    assert short.after.kl != 0
    assert len(short.after.rows) == 300


def test_an_earlier_run_can_be_gone_on_from(short, tmp_path, capsys):
    assert (
        main(
            ["demo", "--start", str(short.output), "--output", str(tmp_path), "--updates", "2", "--seed", "0"]
        )
        == 0
    )
    figures = json.loads((tmp_path / "result.json").read_text())
    assert figures["before"] == short.figures()["before"]
    assert figures["after"] == short.figures()["after"]  # the seed decides everything
    text = capsys.readouterr().out
    assert "Samples before PPO" in text
    assert "ends by itself" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--updates", "0"], "at least 1"),
        (["--start", "nowhere"], "holds no result.json"),
        (["--reward", "x"], "invalid choice"),
    ],
)
def test_what_cannot_be_run_is_said_at_once(capsys, words, says):
    with pytest.raises(SystemExit):
        main(["demo", *words])
    assert says in capsys.readouterr().err
