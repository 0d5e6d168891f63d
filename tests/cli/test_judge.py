"""`trellis judge` and the example script: what is compared, what is printed and written, what is refused."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests import warm
from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer
from tests.engines.test_http import answering, said
from trellis.cli import main

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "scripts" / "evals" / "judge_tldr.py"
WORDS = "the battery lasts all day and the picture is very good".split()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with tiny models and files: one/, two/, reward/, data.jsonl, good.jsonl, bad.jsonl."""
    home = tmp_path_factory.mktemp("judge")
    tokenizer = tiny_tokenizer()
    models = {
        "one": tiny_model("llama", tokenizer),
        "two": tiny_model("llama", tokenizer, seed=1),
        "reward": tiny_classifier("llama", tokenizer),
    }
    for name, model in models.items():
        model.save_pretrained(home / name)
        tokenizer.save_pretrained(home / name)
    prompts = [" ".join(WORDS[i : i + 3]) for i in range(8)]
    for file, answer in (("data", " is fine"), ("good", " good"), ("bad", " a bad one")):
        rows = [{"prompt": prompt, "completion": f"{answer} {i}"} for i, prompt in enumerate(prompts)]
        (home / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return home


def judged(capsys, *words) -> tuple[str, str]:
    assert main(["judge", *map(str, words)]) == 0
    return capsys.readouterr()


def test_two_models_are_compared_by_a_reward_model(home, tmp_path, capsys):
    words = [home / "one", "--against", home / "two", "--judge", home / "reward"]
    words += ["--dataset_name", home / "data.jsonl", "--max_new_tokens", 5, "--output", tmp_path]
    out, err = judged(capsys, *words)
    result = json.loads((tmp_path / "result.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    rate = result["win_rate"]
    assert rate["n"] == len(rows) == 8
    assert rate["rate"] == pytest.approx(sum(row["vote"] for row in rows) / 8)
    assert rate["low"] <= rate["rate"] <= rate["high"]
    assert all(row["completion"] != row["other"] for row in rows if row["vote"] != 0.5)
    assert f"{rate['rate']:.1%} [{rate['low']:.1%}, {rate['high']:.1%}]" in out
    assert "at equal lengths:" in out
    assert f"{home / 'one'} answered 8 of 8" in err
    assert "judged 8 of 8" in err
    # The other way round everything is turned round.
    words[0], words[2] = words[2], words[0]
    judged(capsys, *words)
    back = json.loads((tmp_path / "result.json").read_text())["win_rate"]
    assert (back["rate"], back["wins"]) == (pytest.approx(1 - rate["rate"]), rate["losses"])


def test_a_model_against_a_column_by_a_language_model(home, tmp_path, capsys):
    words = [home / "one", "--against", "column:completion", "--judge", home / "two", "--soft"]
    words += [
        "--dataset_name",
        home / "data.jsonl",
        "--max_new_tokens",
        5,
        "--num_examples",
        3,
        "--output",
        tmp_path,
    ]
    out, _ = judged(capsys, *words)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["win_rate"]["n"] == 3
    assert 0 < result["win_rate"]["rate"] < 1
    assert result["orders_agree"][1] == 3
    assert "of 3 pairs" in out


def test_two_files_by_a_server(home, tmp_path, capsys):
    def answer():
        body = seen[-1][1].decode()
        return 200, said("0" if body.index(" good ") < body.index(" a bad one") else "1")

    os.environ["JUDGE_KEY"] = "sk-judge"
    try:
        with answering(answer) as (url, seen):
            words = [home / "good.jsonl", "--against", home / "bad.jsonl", "--judge", "openai:gpt-4o-mini"]
            words += [
                "--judge_base_url",
                f"{url}/v1",
                "--judge_api_key_env",
                "JUDGE_KEY",
                "--output",
                tmp_path,
            ]
            out, _ = judged(capsys, *words)
    finally:
        del os.environ["JUDGE_KEY"]
    assert len(seen) == 16
    assert {key for _, _, key in seen} == {"Bearer sk-judge"}
    assert "100.0% [67.6%, 100.0%] (8 wins, 0 losses, 0 ties, 0 invalid)" in out
    assert "said the same of 8 of 8 pairs" in out
    assert "sk-judge" not in "".join(path.read_text() for path in tmp_path.iterdir())


def test_verdicts_that_cannot_be_read_are_told(home, tmp_path, capsys):
    with answering((200, said("neither"))) as (url, _):
        words = [home / "good.jsonl", "--against", home / "bad.jsonl", "--judge", "openai:m"]
        out, _ = judged(capsys, *words, "--judge_base_url", url, "--output", tmp_path)
    assert "8 of 8 verdicts could not be read" in out
    assert json.loads((tmp_path / "result.json").read_text())["win_rate"]["rate"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("one --against two --judge reward", "two models need prompts to answer: write --dataset_name"),
        ("good.jsonl --against data.txt --judge reward", "cannot load the model"),
        ("one --against column:gold --judge reward --dataset_name data.jsonl", "no column 'gold' of answers"),
        ("one --against two --judge reward --dataset_name data.jsonl --prompt_column q", "no column 'q'; it has prompt"),
        ("good.jsonl --against bad.jsonl --judge openai:", "names no model"),
        (
            "good.jsonl --against bad.jsonl --judge openai:m --judge_base_url http://localhost:1 --max_requests 9",
            "16 questions .* are more than --max_requests 9",
        ),
        ("good.jsonl --against bad.jsonl --judge openai:m --judge_base_url http://example.org", "must begin with https"),
        ("one --against two --judge reward --num_examples 0", "must be at least 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_one_error(home, capsys, words, message):
    before = os.getcwd()
    os.chdir(home)
    try:
        with pytest.raises(SystemExit) as stopped:
            main(["judge", *words.split()])
    finally:
        os.chdir(before)
    assert stopped.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_files_that_answer_other_prompts_are_refused(home, tmp_path, capsys):
    lines = (home / "bad.jsonl").read_text().splitlines()
    (tmp_path / "turned.jsonl").write_text("\n".join(lines[::-1]))
    with pytest.raises(SystemExit):
        main(
            [
                "judge",
                str(home / "good.jsonl"),
                "--against",
                str(tmp_path / "turned.jsonl"),
                "--judge",
                str(home / "reward"),
            ]
        )
    assert "row 1 of" in capsys.readouterr().err


# ---- examples/scripts/evals/judge_tldr.py


def script(*words) -> str:
    done = warm.run(SCRIPT, *map(str, words))
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_example_judges_offline(home):
    data = ["--dataset_name", home / "data.jsonl", "--dataset_split", "train", "--max_new_tokens", 4]
    out = script(
        "--model_name_or_path", home / "one", "--judge_model", home / "reward", "--num_examples", 5, *data
    )
    assert "Model win rate: " in out
    assert "wins" in out


def test_the_example_with_the_documented_flags(home):
    data = ["--dataset_name", home / "data.jsonl", "--dataset_split", "train", "--max_new_tokens", 4]
    with answering((200, said("1"))) as (url, seen):
        words = ["--model_name_or_path", home / "one", "--judge_model", "gpt-4o-mini", "--num_examples", 1000]
        out = script(*words, "--judge_base_url", f"{url}/v1", *data)
    assert "Model win rate: 50.00%" in out
    assert len(seen) == 16
    assert b'"model": "gpt-4o-mini"' in seen[0][1]
