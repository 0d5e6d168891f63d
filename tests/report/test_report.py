"""What a report says of one run and of several, read off the page's text and data."""

import json
import re
from html.parser import HTMLParser

import pytest

from tests.builders import tiny_model, tiny_tokenizer
from trellis.cli import main
from trellis.cli.report import estimated
from trellis.report import read_runs
from trellis.report.meanings import Meanings, in_order
from trellis.report.page import page
from trellis.report.samples import side_by_side
from trellis.report.series import band, bucketed, grouped, panels, read_at
from trellis.report.settings import settings

from .runs import EVIL, write_health, write_run, write_samples


class Words(HTMLParser):
    """The page's words, its scripts' text apart, and every address it names."""

    def __init__(self, text):
        super().__init__()
        self.said, self.scripts, self.addresses, self.tags = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        (self.scripts if self.tags[-1:] == ["script"] else self.said).append(data)

    def handle_endtag(self, tag):
        self.tags.append(f"/{tag}")


def words_of(*folders):
    return Words(page(read_runs(folders), "title"))


def test_one_run_is_told_in_full(tmp_path):
    run = write_run(tmp_path / "one", max_length=777)
    write_health(
        run,
        {
            "step": 9,
            "name": "loss-stuck",
            "event": "found",
            "message": "it is 0.6931",
            "advice": "look at labels",
        },
        {"step": 12, "name": "loss-stuck", "event": "cleared", "message": "it moves", "advice": ""},
    )
    words = words_of(run)
    said = " ".join(words.said)
    for text in (
        "trellis sft --seed 0",
        "seed 0",
        "finished at step 40",
        "17 rows, SHA-256 abababababab",
        "17 kept, 0 cut, 3 dropped",
        "12 s",
        "812 MiB at most",
        "torch 2.13.0",
        "it is 0.6931",
        "over: it moves",
        "777",
        "Σ H(p_t) / trained tokens, in nats",
    ):
        assert text in said
    assert words.addresses == []
    data = json.loads(words.scripts[0])
    assert data["marks"] == [[0, 9, "loss-stuck"]]
    assert [panel["name"] for panel in data["panels"]] == ["loss", "entropy"]
    assert len(data["panels"][0]["curves"][0]["x"]) == 40


def test_nothing_on_the_page_is_obeyed(tmp_path):
    run = write_run(tmp_path / "one", names=("loss", EVIL), run_name=EVIL)
    write_samples(run, [{"step": 1, "prompt": EVIL, "completion": "\x1b[2J\u202ebad", EVIL: EVIL}])
    write_health(run, {"step": 1, "name": EVIL, "message": EVIL, "advice": EVIL})
    words = words_of(run)
    assert words.tags.count("script") == 2
    assert "img" not in words.tags
    assert words.addresses == []
    said = " ".join(words.said)
    assert said.count(EVIL) >= 6
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert json.loads(words.scripts[0])["panels"][1]["name"] == EVIL


def test_seeds_of_one_experiment_are_one_curve_with_a_band(tmp_path):
    folders = [write_run(tmp_path / f"run{seed}", seed=seed) for seed in range(3)]
    other = write_run(tmp_path / "other", learning_rate=1e-4)
    runs = read_runs([*folders, other])
    groups = grouped(runs)
    assert [(name, len(members)) for name, members in groups] == [("run0 and 2 more seeds", 3), ("other", 1)]
    seeds, alone = panels(groups)["loss"]
    values = [[row["loss"] for row in run.history if "loss" in row] for run in runs[:3]]
    assert seeds["mean"] == pytest.approx([sum(at) / 3 for at in zip(*values, strict=True)], rel=1e-4)
    assert seeds["low"] == pytest.approx([min(at) for at in zip(*values, strict=True)], rel=1e-4)
    assert "low" not in alone
    assert [(s.name, s.differs) for s in settings(runs)][:2] == [("seed", True), ("learning_rate", True)]


def test_long_curves_come_in_buckets():
    points = [(float(x), float(x % 7)) for x in range(10_000)]
    curve = bucketed(points)
    assert len(curve["x"]) == 300
    assert set(curve["low"]) == {0.0}
    assert set(curve["high"]) == {6.0}
    assert sum(curve["mean"]) / 300 == pytest.approx(3, abs=0.01)
    assert bucketed(points[:300])["mean"] == [y for _, y in points[:300]]


def test_a_band_reads_between_steps_and_not_beyond():
    assert read_at([(0.0, 0.0), (10.0, 5.0)], 4.0) == 2.0
    assert read_at([(0.0, 0.0), (10.0, 5.0)], 11.0) is None
    assert read_at([(2.0, 0.0), (10.0, 5.0)], 1.0) is None
    found = band([[(0.0, 0.0), (10.0, 10.0)], [(0.0, 2.0), (5.0, 3.0), (20.0, 3.0)]])
    assert found["x"] == [0.0, 5.0, 20.0]
    assert found["low"] == [0.0, 3.0, 3.0]
    assert found["high"] == [2.0, 5.0, 3.0]


def test_a_prompt_is_shown_across_time(tmp_path):
    run = write_run(tmp_path / "one")
    write_samples(
        run,
        [
            {"step": step, "prompt": f"p{i}", "completion": f"c{step}.{i}", "score": 0.5}
            for step in range(1, 21)
            for i in range(3 if step % 2 else 2)
        ],
    )
    rows = side_by_side(read_runs([run])[0])
    texts = [[dict(card["texts"])["completion"] for card in row["cards"]] for row in rows]
    assert texts == [["c1.0", "c7.0", "c13.0", "c20.0"], ["c1.1", "c7.1", "c13.1", "c20.1"]]
    assert rows[0]["cards"][0]["numbers"] == [("score", "0.5")]


def test_other_prompts_at_each_step_are_shown_too(tmp_path):
    run = write_run(tmp_path / "one")
    write_samples(run, [{"step": s, "prompt": f"p{s}", "completion": "c"} for s in (1, 2)])
    (row,) = side_by_side(read_runs([run])[0])
    assert [dict(card["texts"])["prompt"] for card in row["cards"]] == ["p1", "p2"]


def test_metrics_have_meanings():
    meanings = Meanings(["PPOTrainer"])
    assert meanings.of("eval_objective/kl").startswith("on the evaluation set: ")
    assert (
        meanings.of("rewards/length_of/mean")
        == "mean of the reward length of, over the completions that it applies to"
    )
    assert meanings.of("x/y") == ""
    assert Meanings(["MyTrainer"]).of("rewards/margins")
    assert in_order(["x", "profile/seconds", "objective/kl", "loss"]) == [
        "loss",
        "objective/kl",
        "x",
        "profile/seconds",
    ]


def test_what_was_measured_stands_beside_what_was_to_be_expected(tmp_path):
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "texts.jsonl").write_text('{"text": "the battery lasts"}\n' * 8)
    words = ["sft", "--model_name_or_path", "model", "--dataset_name", "texts.jsonl", "--output_dir", "out"]
    command = {"words": words, "recipe": {"max_length": 32}, "folder": str(tmp_path)}
    assert re.fullmatch(r"[\d,]+ MiB at most per process, roughly .+ in all", estimated({"command": command}))
    command["words"][2] = "another"
    assert estimated({"command": command}) == ""
    assert estimated({}) == ""


def test_the_command(tmp_path, capsys):
    run = write_run(tmp_path / "runs" / "one")
    out, pictures = tmp_path / "r.html", tmp_path / "pictures"
    assert main(["report", str(run), "--out", str(out), "--png", str(pictures)]) == 0
    assert re.search(r"<title>trellis report one</title>", out.read_text())
    assert (pictures / "one.png").read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in (pictures / "one.svg").read_text()
    assert main(["report", str(run.parent)]) == 2
    assert f"Below it there are runs: {run}" in capsys.readouterr().err
    assert main(["report", str(run), str(run)]) == 2
    assert "twice" in capsys.readouterr().err
