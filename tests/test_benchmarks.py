"""The benchmarks compare what they say they compare."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks import curves, gpu, rollout, scoring, startup
from benchmarks.measure import Case, compare
from benchmarks.peers import build, cases, drive, ours, page, results, worker
from benchmarks.peers.compare import Bench, Side, agree, time_ratio
from benchmarks.peers.environments import environment

SFT, PPO = cases.CASES["sft-8k"], cases.CASES["ppo-50k"]
FACTS = {"body": 10.0, "last": 2.0, "head": 3.0}


def report(**changes):
    found = {
        "seconds": 2.0,
        "memory": 100.0,
        "losses": [1.0, 0.5],
        "norms": [3.0],
        "tokens": 50.0,
        "trained": 20.0,
    }
    return {**found, "texts": 4.0, "rate": 1e9, "versions": {"torch": "x"}, "profile": {}, **changes}


def test_a_slower_and_hungrier_side_shows():
    def plain():
        grown = torch.ones(32_000_000)  # beyond what malloc serves from its heap, which may lie there already
        end = time.process_time() + 0.05
        while time.process_time() < end:
            grown.sum()

    row = compare(Case("toy", plain, lambda: torch.ones(10)), repeats=3)
    assert row.ratio < 0.5
    assert row.plain_seconds >= 0.05
    assert row.plain_memory > row.our_memory + 100


def test_every_case_runs_on_both_sides():
    cases = [*scoring.cases(small=True), *rollout.cases(small=True)]
    for case in cases:
        case.plain()
        case.ours()
    assert len({case.name for case in cases}) == len(cases)


def test_real_tokens_end_with_the_first_stop_token():
    stop, other = min(rollout.STOPS - {0}), 1
    rows = [[other, stop, other, stop], [other, other, other, other], [stop, stop, other, other]]
    assert rollout.real_tokens(torch.tensor(rows)) == 2 + 4 + 1


def test_every_sampler_samples_and_every_axis_is_measured(tmp_path, capsys):
    rollout.main(["--tiny", "--repeats", "1"])
    curves.main(["--tiny", "--repeats", "1", "--chart", str(tmp_path / "curves.svg")])
    said = capsys.readouterr().out
    assert said.count("\n| ") == 1 + 1 + 1 + 1 + len(curves.AXES)  # rules, heads but the first, rows
    chart = (tmp_path / "curves.svg").read_text()
    assert all(title in chart for title in curves.TITLES.values())
    assert "#000000" not in chart.partition("<defs>")[2]


def test_the_power_of_growth():
    points = [curves.Point(n, 0.1 * n, 5.0, 0.01 * n**2) for n in (1, 2, 4, 8)]
    assert [round(curves.slope(points, name), 6) for name in ("seconds", "memory", "floor")] == [1, 0, 2]


def test_the_floor_of_a_step_by_hand():
    model = scoring.model_of(
        64, 8
    )  # width 8, inner 16: 4 × 64 + 3 × 128 a layer, of which 128 make keys and values
    body, last, head = 2 * 640, 640 - 128, 64 * 8
    step = curves.Step(prompt=5, response=2, samples=3, vocabulary=64, prompts=2)
    assert step.floor(model) == 10 * ((body - last) * 22 + (last + head) * 12)


def test_an_accelerators_table_is_made_without_one(capsys):
    gpu.main(["sft", "ppo", "--tiny"])
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[0] for row in rows if row.startswith("| ")][-2:] == ["| sft", "| ppo"]
    with pytest.raises(SystemExit):
        gpu.main(["sftt", "--tiny"])


def test_a_second_start_tokenises_nothing(tmp_path, capsys):
    startup.write_texts(tmp_path / "texts.jsonl", 50)
    found = []
    for _ in range(2):
        startup.train(tmp_path)
        found.append(json.loads(capsys.readouterr().out.splitlines()[-1])["tokenised"])
    assert found[0] >= 50
    assert found[1] < 5


def test_work_that_each_side_draws_is_compared_per_useful_token():
    ours, theirs = report(tokens=50.0), report(seconds=8.0, tokens=100.0)
    assert time_ratio(SFT, ours, theirs) == 4
    assert time_ratio(PPO, ours, theirs) == 2


def test_losses_or_gradients_that_differ_show():
    same, other = (report(), report(losses=[1.0005, 0.5])), (report(), report(losses=[1.0, 0.6]))
    assert agree(SFT, [same])
    assert not agree(SFT, [same, other])
    assert not agree(SFT, [(report(), report(norms=[3.1]))])
    assert agree(PPO, [other]) is None
    with pytest.raises(ValueError, match="cannot be compared"):
        agree(SFT, [(report(), report(losses=[]))])


def test_the_page_is_made_of_the_file_alone(tmp_path):
    for theirs in (report(seconds=6.0, memory=300.0), report(seconds=8.0, memory=200.0)):
        results.add(tmp_path, SFT, FACTS, pair=(report(), theirs))
    results.add(tmp_path, SFT, FACTS, profile=report(profile={"training": 3, "data": 1}))
    found = page.page(tmp_path)
    row = next(line for line in found.splitlines() if line.startswith("| sft-8k | 2 "))
    assert row.count("|") == len(page.COLUMNS) + 1
    assert (
        "| 2.00 | 7.00 | 3.00–**3.50**–4.00× | 1.7× | 100 | 250 | 2.00–**2.50**–3.00× | 2× | 25 | 7 |" in row
    )
    assert "| agree | `peers sft-8k` |" in row
    assert "| sft-8k | 0% | 0% | 0% | 75% | 0% | 25% |" in found
    results.add(tmp_path / "profiles", SFT, FACTS, profile=report(profile={"training": 3, "data": 1}))
    alone = page.page(tmp_path / "profiles")
    assert "| sft-8k | 0% | 0% | 0% | 75% | 0% | 25% |" in alone
    assert "useful tokens/s" not in alone
    with pytest.raises(ValueError, match="found no results"):
        page.page(tmp_path / "none")


def test_the_phases_of_all_measured_steps_are_added_up():
    clock = worker.Clock()
    for loss, phase in ((1.0, "starting"), (0.9, "sampling"), (0.8, "training"), (0.7, "training")):
        clock.on_log(None, None, None, {"loss": loss, f"profile/cpu/{phase}": 2.0, "profile/time/data": 1.0})
    clock.on_log(None, None, None, {"train_loss": 1.0, "profile/cpu/training": 9.0})
    assert clock.phases(1) == {"sampling": 2.0, "training": 4.0}


def test_a_case_that_was_changed_since_starts_anew(tmp_path):
    results.add(tmp_path, SFT, FACTS, pair=(report(), report()))
    known = results.read(tmp_path)
    limits = drive.Limits(pairs=1)
    assert not limits.left(known[SFT])
    assert limits.left(known.get(replace(SFT, rows=9)))
    assert drive.Limits(pairs=1, profile=True).left(known[SFT])
    assert not drive.Limits(pairs=2, end=0.0).left(known[SFT])


def test_the_floor_by_hand():
    facts = {**FACTS, "tokens": 7, "trained": 2, "texts": 1}
    whole, judged = 8 * 7 + 2 * 2 + 3 * 2, 8 * 7 + 2 * 1  # the head, too; one state of the last layer
    floors = {m: cases.floor_flops(replace(SFT, method=m), facts) for m in ("sft", "reward", "dpo", "grpo")}
    assert floors == {"sft": 6 * whole, "reward": 6 * judged, "dpo": 8 * whole, "grpo": 10 * whole}
    assert cases.floor_flops(replace(SFT, lora=True), facts) == 4 * whole
    other = 10 * 2 + 3 * 2
    assert cases.floor_flops(replace(SFT, method="kto"), facts) == 8 * whole + 4 * other
    critic = 60
    measured = 2 * (whole + critic + judged)
    assert cases.floor_flops(replace(PPO, epochs=2), facts) == 2 * whole + measured + 2 * 6 * (whole + critic)
    measured = 2 * (whole + judged)
    assert (
        cases.floor_flops(replace(PPO, epochs=2, trunk=True), facts) == 2 * whole + measured + 2 * 6 * whole
    )


def test_every_aim_of_a_case_is_of_time_and_memory():
    assert all(
        case.rows % case.micro_rows == 0 and case.shape in cases.SHAPES for case in cases.CASES.values()
    )
    assert sum(case.aims is not None for case in cases.CASES.values()) > 14


def test_built_models_stop_by_themselves(tmp_path):
    build.build(PPO.tiny(), tmp_path)
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert len(rows) == PPO.tiny().rows
    with torch.no_grad():
        ends = policy(torch.tensor([rows[0]["prompt"]])).logits.softmax(-1)[..., build.EOS]
    wanted = 1 / (PPO.tiny().stop_after + 1)
    assert ends.min() > wanted / 2
    assert ends.max() < wanted * 2


def test_a_case_or_an_environment_that_is_not_there_is_said(tmp_path, capsys):
    with pytest.raises(SystemExit):
        drive.parsed(["sft-9k"])
    assert "no case is called sft-9k; there are ppo-50k" in capsys.readouterr().err
    with pytest.raises(ValueError, match="found no bin/python there"):
        environment("trl116", tmp_path, {"trl116": tmp_path})


def test_a_side_that_fails_shows_its_last_lines(tmp_path):
    with pytest.raises(RuntimeError, match="No module named benchmarks.peers.nobody"):
        Side(Path(sys.executable), "benchmarks.peers.nobody").run(log=tmp_path / "log")


@pytest.mark.slow
def test_our_side_measures_every_method(tmp_path):
    """All of them in one process."""
    names = [n for n in cases.CASES if not n.endswith(("-50k", "-150k", "-64", "-026"))]
    found = {}
    for name in names:
        case = cases.CASES[name].tiny()
        build.build(case, tmp_path / name)
        clean = worker.Job(case, tmp_path / name, tmp_path / "trained")
        found[name] = worker.train(clean, ours.build)
    assert all(r["seconds"] > 0 and r["memory"] > 0 and len(r["steps"]) == 1 for r in found.values())
    assert all(r["tokens"] > r["trained"] > r["texts"] > 0 for r in found.values())


class Inside(Bench):
    """Both sides are ours, in this process."""

    def build(self):
        build.build(self.case, self.folder)
        return json.loads((self.folder / "facts.json").read_text())

    def report(self, name, number, **environment):
        job = worker.Job(self.case, self.folder, self.folder / "trained")
        return {**worker.train(job, ours.build), "rate": 1e9, "versions": {"torch": name}}


def test_pairs_are_measured_once_and_kept(tmp_path):
    case, nobody = cases.CASES["dpo-8k"].tiny(), Side(Path(sys.executable), "nobody")
    bench = Inside(case, nobody, nobody, tmp_path / "work")
    drive.fill(bench, tmp_path / "out", drive.Limits(pairs=1))
    known = results.read(tmp_path / "out")[case]
    assert len(known.pairs) == 1
    assert agree(case, known.pairs)
    drive.fill(bench, tmp_path / "out", drive.Limits(pairs=2, profile=True))
    drive.fill(bench, tmp_path / "out", drive.Limits(pairs=2, profile=True))
    again = results.read(tmp_path / "out")[case]
    assert again.pairs[0] == known.pairs[0]
    assert len(again.pairs) == 2
    assert again.profile is not None
    assert "| dpo-8k | 2 |" in page.page(tmp_path / "out")
