"""The benchmarks compare what they say they compare."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks import rollout, scoring
from benchmarks.measure import Case, compare
from benchmarks.peers import build, cases, table
from benchmarks.peers.compare import COLUMNS, Side, alternate, line, losses_agree, time_ratio
from benchmarks.peers.environments import environment

SFT, PPO = cases.CASES["sft-8k"], cases.CASES["ppo-50k"]


def report(**changes):
    found = {"seconds": 2.0, "memory": 100.0, "losses": [1.0, 0.5], "tokens": 50.0, "trained": 20.0}
    return {**found, "rate": 1e9, "versions": {"torch": "x"}, **changes}


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
    cases = [*scoring.cases(), *rollout.cases()]
    for case in cases:
        case.plain()
        case.ours()
    assert len({case.name for case in cases}) == len(cases)


def test_work_that_each_side_draws_is_compared_per_useful_token():
    ours, theirs = report(tokens=50.0), report(seconds=8.0, tokens=100.0)
    assert time_ratio(SFT, ours, theirs) == 4
    assert time_ratio(PPO, ours, theirs) == 2


def test_losses_that_differ_show_in_the_table():
    same, other = (report(), report(losses=[1.0005, 0.5])), (report(), report(losses=[1.0, 0.6]))
    assert losses_agree(SFT, [same])
    assert not losses_agree(SFT, [same, other])
    assert losses_agree(PPO, [other]) is None
    with pytest.raises(ValueError, match="cannot be compared"):
        losses_agree(SFT, [(report(), report(losses=[]))])
    facts = {"body": 1e6, "head": 1e6}
    assert "differ" in line(SFT, [same, other], facts)
    assert line(SFT, [same], facts).count("|") == len(COLUMNS) + 1


def test_the_floor_by_hand():
    facts = {"body": 10, "head": 3, "tokens": 7, "trained": 2}
    floors = {m: cases.floor_flops(replace(SFT, method=m), facts) for m in ("sft", "reward", "dpo", "grpo")}
    assert floors == {"sft": 6 * 76, "reward": 6 * 70, "dpo": 8 * 76, "grpo": 10 * 76}
    assert cases.floor_flops(replace(PPO, epochs=2), facts) == 2 * 76 + 2 * (210 + 6) + 2 * 6 * (140 + 6)


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
        table.parsed(["sft-9k"])
    assert "no case is called sft-9k; there are ppo-50k" in capsys.readouterr().err
    with pytest.raises(ValueError, match="found no bin/python there"):
        environment("trl116", tmp_path, {"trl116": tmp_path})


def test_a_side_that_fails_shows_its_last_lines(tmp_path):
    with pytest.raises(RuntimeError, match="No module named benchmarks.peers.nobody"):
        Side(Path(sys.executable), "benchmarks.peers.nobody").run(log=tmp_path / "log")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo-8k", "sft-8k", "dpo-8k", "grpo-8k", "reward-8k"])
def test_our_side_measures_every_method(name, tmp_path):
    """Both sides are ours here, so the losses must be equal and the tokens those of the rows."""
    ours, case = Side(Path(sys.executable), "benchmarks.peers.ours"), cases.CASES[name].tiny()
    found = alternate(case, 1, ours, ours, tmp_path, say=str)
    first, second = found[0]
    assert first["losses"] == second["losses"] != []
    assert first["tokens"] == second["tokens"] > first["trained"] > 0
    assert all(r["seconds"] > 0 and r["memory"] > 0 and len(r["steps"]) == 1 for r in found[0])
    row = line(case, found, json.loads((tmp_path / "full" / "facts.json").read_text()))
    assert row.startswith(f"| {case.name} | ")
