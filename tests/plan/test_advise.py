"""`trellis advise`: the table, what changes an answer, and recipes that train as they are written."""

import contextlib
import json
import re

import pytest
import yaml

from trellis.cli import main
from trellis.plan.advice import TABLE, Facts, advise
from trellis.plan.kinds import kind_of
from trellis.plan.machine import GIB, Machine, ModelFacts, states

WORDS = ["the battery", "it is easy", "the price", "the screen"]
DATA = {
    "texts": [{"text": f"{w} is {i}"} for i, w in enumerate(WORDS * 8)],
    "thumbs": [{"prompt": w, "completion": f" is {i}", "label": i % 3 == 0} for i, w in enumerate(WORDS * 8)],
    "pairs": [{"prompt": w, "chosen": f" is {i}", "rejected": f" was {i}"} for i, w in enumerate(WORDS * 8)],
    "prompts": [{"prompt": w, "solution": str(i)} for i, w in enumerate(WORDS * 8)],
}
GPU = Machine("a GPU", 80 * GIB, 8)
SMALL = Machine("a GPU", 8 * GIB, 8)
BILLION = ModelFacts("m", 10**9, 2048, 20, 4096)


def facts(kind, machine=GPU, model=None, **more):
    return Facts(kind=kind, rows=100, columns=("prompt",), machine=machine, model=model, **more)


@pytest.mark.parametrize(
    ("given", "methods"),
    [
        (facts("instructions"), ("sft",)),
        (facts("pairs"), ("dpo",)),
        (facts("pairs", GPU, BILLION), ("dpo",)),
        (facts("pairs", Machine("a GPU", 22 * GIB, 8), BILLION), ("orpo",)),
        (facts("pairs", SMALL, BILLION), ("dpo",)),
        (facts("pairs", online=True), ("reward", "ppo")),
        (facts("pairs", online=True, has_prompt=False), ("dpo",)),
        (facts("pairs", reward="function"), ("grpo",)),
        (facts("thumbs", liked=(3, 5)), ("kto",)),
        (facts("prompts", reward="function"), ("grpo",)),
        (facts("prompts", reward="model"), ("ppo",)),
        (facts("prompts", SMALL, BILLION, reward="model"), ("rloo",)),
        (facts("instructions", reward="function", has_prompt=False), ("sft",)),
    ],
)
def test_the_table(given, methods):
    choice = advise(given)
    assert choice.methods == methods
    assert 2 <= len(choice.why(given)) <= 5
    assert choice.otherwise
    assert any(figure in " ".join(choice.why(given)) for figure in ("100", "3 liked"))


def test_a_wish_that_the_data_cannot_grant_is_named():
    given = facts("pairs", online=True, has_prompt=False)
    assert "--online needs prompts in a column of their own" in advise(given).why(given)[-1]
    given = facts("thumbs", online=True, liked=(3, 5))
    assert "--online needs something that scores answers" in advise(given).why(given)[-1]
    given = facts("instructions", reward="model", has_prompt=False)
    assert "--reward needs prompts" in advise(given).why(given)[-1]


def test_every_line_of_the_table_can_be_reached():
    found = [
        advise(facts(kind, machine, BILLION, reward=reward, online=online))
        for kind in ("instructions", "pairs", "thumbs")
        for machine in (GPU, Machine("a GPU", 22 * GIB, 8), SMALL)
        for reward in ("", "function", "model")
        for online in (False, True)
    ]
    assert all(choice in found for choice in TABLE)


def test_prompts_alone_are_refused_with_what_to_add():
    with pytest.raises(ValueError, match="--reward my_rewards.py:my_function"):
        advise(facts("prompts"))
    with pytest.raises(ValueError, match="'solution' can be compared with: --reward accuracy"):
        advise(Facts("prompts", 9, ("prompt", "solution"), GPU))


def test_memory_counts_what_is_held():
    assert states(10, reference=False) == 160
    assert states(10, reference=True) == 200
    assert states(10, reference=True, reward=True) == 240
    assert states(10, reference=True, adapter=True) == 40


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ("text", "instructions"),
        ("messages", "instructions"),
        ("prompt completion", "instructions"),
        ("question answer", "instructions"),
        ("prompt response", "instructions"),
        ("text label", "instructions"),
        ("prompt completion label", "thumbs"),
        ("prompt_ids completion_ids label", "thumbs"),
        ("chosen rejected", "pairs"),
        ("question chosen rejected", "pairs"),
        ("prompt", "prompts"),
        ("prompt solution", "prompts"),
        ("question", "prompts"),
    ],
)
def test_kinds_are_told_by_columns(columns, kind):
    assert kind_of(columns.split()) == kind


@pytest.mark.parametrize("columns", [["rows"], ["chosen"], []])
def test_what_is_no_kind_is_an_error(columns):
    with pytest.raises(ValueError, match="no known data format"):
        kind_of(columns)


@pytest.fixture(scope="module")
def desk(tmp_path_factory, models):
    place = tmp_path_factory.mktemp("desk")
    for name, rows in DATA.items():
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "mine.py").write_text(
        "def short(completions, **columns):\n    return [-len(t) / 9 for t in completions]\n"
    )
    with contextlib.chdir(place):
        yield place


def run(capsys, *words):
    status = main([str(word) for word in words])
    shown = capsys.readouterr()
    assert status == 0, shown.err
    return shown.out


RUNS = [
    ("texts", [], ["sft"]),
    ("thumbs", [], ["kto"]),
    ("pairs", [], ["dpo"]),
    ("pairs", ["--online"], ["reward", "ppo"]),
    ("prompts", ["--reward", "mine.py:short"], ["grpo"]),
    ("prompts", ["--reward", "REWARD"], ["ppo"]),
]


@pytest.mark.parametrize(("data", "words", "methods"), RUNS)
def test_advice_checks_and_trains_as_it_is_written(data, words, methods, desk, models, capsys):
    words = [str(models / "reward") if word == "REWARD" else word for word in words]
    out = run(capsys, "advise", f"{data}.jsonl", "--model", models / "policy", *words, "--out", "r.yaml")
    assert out.splitlines()[-1].startswith("next: trellis check r.yaml")
    recipe = yaml.safe_load((desk / "r.yaml").read_text())
    assert set(methods) == set(recipe) & {"reward", "ppo"} or len(methods) == 1
    for method in methods:
        lines = recipe.get(method, recipe)
        step = lines["per_device_train_batch_size"] * lines["gradient_accumulation_steps"]
        assert step == {"ppo": 16, "grpo": 64}.get(
            method, 1
        )  # half of 32 prompts; 8 prompts with 8 answers; 20 steps
        run(capsys, "check", "r.yaml", "--method", method)
        small = ["--max_steps", 2, "--save_strategy", "no", "--eval_strategy", "no"]
        fewer = {
            "ppo": ["--response_length", 4, "--num_ppo_epochs", 1],
            "grpo": ["--max_completion_length", 4],
        }
        run(capsys, method, "--config", "r.yaml", *small, *fewer.get(method, []))
        history = (desk / f"my-{method}" / "metrics.jsonl").read_text().splitlines()
        assert json.loads(history[-1])["step"] == 2


def test_lengths_and_weights_come_from_the_data(desk, models, capsys):
    rows = [{"prompt": f"{i}", "completion": " b" * (4 + i % 50), "label": i % 5 == 0} for i in range(400)]
    (desk / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = run(capsys, "advise", "long.jsonl", "--model", models / "policy", "--out", "r.yaml")
    assert "80 liked, 320 not" in out
    recipe = yaml.safe_load((desk / "r.yaml").read_text())
    assert recipe["max_length"] in range(54, 80)
    assert 4 <= recipe["desirable_weight"] <= 16 / 3
    run(capsys, "check", "r.yaml", "--strict")


def test_without_a_model_the_next_command_asks_for_one(desk, capsys):
    out = run(capsys, "advise", "pairs.jsonl")
    assert re.search(r"next: trellis advise pairs.jsonl --model MODEL --out recipe.yaml$", out.strip())
    assert "order of use: advise → check → estimate → train → report" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prompts.jsonl"], "--reward accuracy"),
        (["prompts.jsonl", "--reward", "acuracy"], "Did you mean 'accuracy'"),
        (["prompts.jsonl", "--reward", "./nowhere"], "no such directory"),
        (["pairs.jsonl", "--model", "./nowhere"], "nowhere"),
        (["nowhere/at/all.jsonl"], "nowhere"),
        (["texts.jsonl", "--out", "r.json"], "ends in .yaml"),
    ],
)
def test_what_cannot_be_advised_is_one_error(words, said, desk, capsys):
    assert main(["advise", *words]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err
