"""Estimates against what torch allocates, and the command as it is typed."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace

import pytest

from tests.plan import peaks
from trellis.cli import estimate
from trellis.plan.cost import in_words, product_rate, rows_to_time, time_of
from trellis.plan.estimate import ERROR, Estimate
from trellis.plan.kinds import METHODS
from trellis.plan.machine import GIB, Machine
from trellis.plan.memory import SHARDINGS

CPU = Machine("the CPU", 8 * GIB, 2)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with two kinds of models and the data of all methods."""
    found = tmp_path_factory.mktemp("runs")
    peaks.write(found)
    return found


@pytest.fixture
def job(place):
    """The job of a method's flags."""

    def make(method, *more, kind="llama"):
        asked = argparse.Namespace(what=method, method=None, rows=2000)
        return estimate.gather(asked, [*peaks.words(method, kind, place), *more]).job

    return make


def run(capsys, *words):
    status = estimate.main([*map(str, words)])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


@pytest.mark.slow
@pytest.mark.parametrize("kind", peaks.SIZES)
@pytest.mark.parametrize("method", METHODS)
def test_the_peak_is_within_the_stated_error(method, kind, place):
    said, seen = peaks.estimated(method, kind, place)["peak"], peaks.measured(method, kind, place)
    assert 1 - ERROR <= said / seen <= 1 + ERROR


def test_the_documented_error_is_the_asserted_one():
    page = (peaks.ROOT / "docs" / "estimate.md").read_text(encoding="utf-8")
    found = [int(sign + n) for sign, n in re.findall(r"\| ([+-]?)(\d+)% ", page.replace("−", "-"))]
    assert f"±{ERROR:.0%}".replace("%", " %") in page
    assert len(found) == len(METHODS) * len(peaks.SIZES)
    assert max(map(abs, found)) <= 100 * ERROR


def test_a_fitting_run_says_how_it_is_started(place, capsys):
    words = peaks.words("ppo", "llama", place)
    status, out, _ = run(capsys, "ppo", *words, "--memory", 8)
    assert status == 0
    for part in (
        "policy",
        "value model",
        "reference",
        "reward",
        "sampling",
        "scoring",
        "activations",
        "peak",
    ):
        assert re.search(rf"^  {part} ", out, re.MULTILINE), part
    for sharding in SHARDINGS:
        assert re.search(rf"^  {sharding}, 8 +\d", out, re.MULTILINE)
    assert out.splitlines()[-2].startswith("time, roughly")
    assert out.splitlines()[-1].startswith("next: trellis ppo --dataset_name")


def test_a_recipe_that_does_not_fit_says_what_helps(place, tmp_path, capsys):
    flags = peaks.words("dpo", "llama", place)
    flags.remove("--use_cpu")
    lines = [f"{name[2:]}: {value}" for name, value in zip(flags[::2], flags[1::2], strict=True)]
    lines.remove("save_strategy: no")  # which YAML reads as false
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("# trellis dpo --config recipe.yaml\nuse_cpu: true\n" + "\n".join(lines))
    status, out, _ = run(capsys, recipe, "--memory", 0.05, "--no_time")
    assert status == 1
    assert "does NOT fit into 80% of 0.05 GiB" in out
    assert "gradient_checkpointing: true" in out
    assert "time, roughly" not in out
    next_one = out.splitlines()[-1]
    assert next_one.startswith(f"next: trellis estimate {recipe} --memory 0.05 --")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sfx"], "expected a recipe (.yaml) or one of sft"),
        (["sft", "--model_name_or_path", "/none"], "it cannot be read"),
        (["dpo", "--accelerate", "zero9", "--nproc", "2"], "neither a preset"),
    ],
)
def test_what_cannot_be_estimated_is_said(words, said, place, capsys):
    data = ["--dataset_name", str(place / "sft.jsonl"), "--output_dir", "out", "--use_cpu"]
    status, _, err = run(capsys, *words, *data)
    assert status == 2
    assert said in err


def test_a_smaller_micro_batch_a_head_and_recomputing_save(job):
    whole = job("ppo")
    peak = {
        write: after
        for write, after in ((s.write, s.peak) for s in Estimate(whole, CPU, CPU.memory).savings())
    }
    assert any(write.startswith("no value_model_path") for write in peak)
    assert "gradient_checkpointing: true" in peak
    assert "per_device_train_batch_size: 4 with gradient_accumulation_steps: 2" in peak
    assert list(peak.values()) == sorted(peak.values())
    assert "gradient_checkpointing: true" not in {
        s.write for s in Estimate(job("sft", "--gradient_checkpointing", "true"), CPU, GIB).savings()
    }


def test_switches_do_what_their_flags_do(job):
    plain = job("dpo")
    for flags, write in (
        (["--gradient_checkpointing", "true"], "gradient_checkpointing: true"),
        (["--micro_batch_tokens", str(plain.longest)], f"micro_batch_tokens: {plain.longest}"),
        (["--precompute_ref_log_probs", "true"], "precompute_ref_log_probs: true"),
        (["--optim", "adafactor"], "optim: adafactor"),
    ):
        found = {saving.write: saving.peak for saving in Estimate(plain, CPU, GIB).savings()}
        assert found[write] == job("dpo", *flags).memory().peak < plain.memory().peak


def test_adapters_are_counted(job, place):
    adapted = job("dpo", "--use_peft", "true", "--lora_r", "4")
    assert 0 < adapted.adapter < adapted.policy.parameters / 10
    assert not adapted.frozen
    assert adapted.memory().optimizer == 8 * adapted.adapter


def test_the_largest_micro_batch_is_the_largest_that_fits(job):
    found = job("sft")
    room = found.memory(rows=4).peak
    assert found.most_rows(room) == 4
    assert found.most_rows(room - 1) == 2
    assert found.most_rows(1) == 0
    assert replace(found, rows=3).most_rows(GIB) == 2


def test_more_work_takes_longer(job):
    def rate(rows):
        return 1e9

    short = time_of(job("grpo"), rate)
    assert short.steps == 2
    assert short.sample > 0 < short.learn
    twice = time_of(job("grpo", "--max_steps", "4"), rate)
    assert twice.total == pytest.approx(2 * short.total)
    assert time_of(job("grpo"), lambda rows: 2e9).total < short.total
    assert time_of(job("sft"), rate).sample == 0
    assert product_rate(8) > 0


def test_a_slow_product_is_timed_with_few_rows():
    assert [rows_to_time(2048, lambda rows, each=each: rows * each) for each in (1e-9, 0.0005, 1.0)] == [
        2048,
        512,
        8,
    ]
    assert rows_to_time(3, lambda rows: 9.0) == 3


def test_durations_in_words():
    assert [in_words(s) for s in (0.2, 119, 7200, 86400 * 3)] == ["1 s", "119 s", "2 hours", "3 days"]
