"""What a run looks like: the panel on a terminal, lines elsewhere, trackers and samples beside them."""

import io
import json
import math
import os
import re

import pytest
from rich.cells import cell_len
from rich.console import Console
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from tests.builders import tiny_model
from tests.monitor.test_health_runs import constant
from tests.trainers import group_runs, ppo_runs, preference_runs
from tests.trainers.ppo_runs import TEXTS, stops_often
from trellis.monitor import panel_samples, read_samples
from trellis.monitor.health import Event
from trellis.monitor.panel import Board, clock, line, panel, sparkline
from trellis.rewards import RewardError

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Tracker(TrainerCallback):
    """Takes what any tracker of `report_to` is given."""

    def __init__(self):
        self.logs, self.texts, self.tb_writer = [], [], self

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append(dict(logs))

    def add_text(self, name, text, step):
        self.texts.append((name, step))


def text_of(console):
    return CONTROL.sub("", console.file.getvalue())


def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=100)


def watched(trainer):
    """The trainer with its panel on a terminal of ours."""
    trainer.view.console = terminal()
    return trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A GRPO run with a constant reward, its panel, its tracker, its folder."""
    folder, tracker = tmp_path_factory.mktemp("panel"), Tracker()
    trainer = group_runs.build(
        "GRPO",
        folder,
        max_steps=6,
        live_view=True,
        log_completions=True,
        parts={
            "reward_funcs": constant,
            "model": stops_often(tiny_model("llama"), 0.25),
            "callbacks": [tracker],
        },
    )
    watched(trainer).train()
    return trainer, tracker, folder


def test_the_panel_shows_progress_speed_curves_samples_and_health(run):
    trainer, _, _ = run
    last = text_of(trainer.view.console).split("╭")[-1]
    assert "trellis grpo · step 6 of 6" in last
    assert re.search(r"0:00:\d\d gone +0:00:00 left", last)
    assert re.search(r"[\d.,]+ episodes/s · [\d.,]+ tokens/s · .*(sample|learn) \d+%", last)
    assert re.search(r"reward +0\.3 ▄{6} ", last)
    assert re.search(r"completions/mean_length +[\d.]+ [▁-█]{6} ", last)
    assert sum(f"0.3 {text}" in last for text in TEXTS) >= 1
    assert "rewards-all-equal (step 3)" in last
    assert max(map(cell_len, last.splitlines())) <= 100


def test_the_terminal_is_given_back(run, tmp_path):
    assert run[0].view.console.file.getvalue().rstrip().endswith("\x1b[?25h")

    def broken(completions, **_):
        raise KeyError("reward")

    trainer = watched(group_runs.build("GRPO", tmp_path, live_view=True, parts={"reward_funcs": broken}))
    with pytest.raises(RewardError, match="KeyError"):
        trainer.train()
    assert trainer.view.console.file.getvalue().rstrip().endswith("\x1b[?25h")


def test_trackers_get_plain_numbers_and_tables(run):
    _, tracker, _ = run
    trained = [logs for logs in tracker.logs if "loss" in logs]
    assert len(trained) == 6
    assert all(type(value) in (float, int) for logs in tracker.logs for value in logs.values())
    assert {"reward", "entropy", "ratio/off_at_start"} <= set(trained[-1])
    assert ("completions", 6) in tracker.texts


def test_metrics_samples_and_health_lie_in_the_output_directory(run):
    _, _, folder = run
    rows = read_samples(folder)
    assert (folder / "samples.parquet").exists()
    assert sorted({row["step"] for row in rows}) == [1, 2, 3, 4, 5, 6]
    assert {"step", "prompt", "completion", "score", "finished"} == set(rows[0])
    assert {round(row["score"], 6) for row in rows} == {0.3}
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 7
    (event,) = [json.loads(x) for x in (folder / "health.jsonl").read_text().splitlines()]
    assert {"step", "name", "message", "advice"} <= set(event)


def test_off_a_terminal_a_log_is_a_line(tmp_path, capsys):
    more = {"eval_dataset": preference_runs.pairs(4)}
    trainer = preference_runs.built("DPO", tmp_path, eval_strategy="epoch", trainer=more)
    assert trainer.view.way == "lines"
    kinds = [type(c) for c in trainer.callback_handler.callbacks]
    assert not {ProgressCallback, PrinterCallback} & set(kinds)
    trainer.train()
    lines = [
        x for x in capsys.readouterr().out.splitlines() if not x.startswith(("prompt", "the ", "samples"))
    ]
    assert re.match(
        r"step 1/3  loss 0\.6931  rewards/accuracies 0  rewards/margins 0  0:00:\d\d left$", lines[0]
    )
    assert any(re.match(r"step 3/3  .*eval_loss", x) for x in lines)
    assert re.match(r"3 steps in [\d.]+ s, mean loss 0\.\d+$", lines[-1])


def test_transformers_own_bar_stays_where_it_is_wanted(tmp_path):
    trainer = ppo_runs.trainer_of(tmp_path, live_view=False, disable_tqdm=False)
    assert trainer.view.way == "off"
    assert ProgressCallback in [type(c) for c in trainer.callback_handler.callbacks]
    mine = PrinterCallback()
    kept = ppo_runs.trainer_of(tmp_path, parts={"callbacks": [mine]}).callback_handler.callbacks
    assert [c for c in kept if isinstance(c, PrinterCallback)] == [mine]


def test_samples_of_a_resumed_run_go_on_and_those_of_another_run_are_gone(tmp_path):
    def run(rollouts, resume=None):
        args = {
            "save_strategy": "steps",
            "save_steps": 2,
            "total_episodes": 4 * rollouts,
            "num_ppo_epochs": 1,
        }
        ppo_runs.trainer_of(tmp_path, **args).train(resume_from_checkpoint=resume)
        return [row["step"] for row in read_samples(tmp_path)]

    assert run(3) == [1] * 4 + [2] * 4 + [3] * 4
    assert run(4, os.fspath(tmp_path / "checkpoint-2")) == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4
    assert run(1) == [1] * 4


def test_a_long_run_keeps_samples_from_all_over():
    rows = []
    for step in range(3000):
        rows = panel_samples.thinned([*rows, *({"step": step} for _ in range(8))])
    steps = sorted({row["step"] for row in rows})
    assert len(rows) <= panel_samples.LIMIT
    assert steps[-1] == 2999
    assert steps[0] < 1500


def test_sparklines():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 20) == "▁▂▃▄▅▆▇█"
    assert sparkline([1.0, 1.0], 5) == "▄▄"
    assert sparkline([], 5) == ""
    assert sparkline([0.0] * 50 + [1.0] * 50, 4) == "▁▁██"
    assert len(sparkline(list(range(1001)), 60)) == 60


def test_clocks_and_lines():
    assert [clock(x) for x in (None, 59.6, 3661, math.inf)] == ["–", "0:01:00", "1:01:01", "–"]
    event = Event(4, "truncation", "found", "much is cut", "write more")
    board = Board(
        "sft",
        step=5,
        steps=10,
        at_start=1,
        seconds=8.0,
        speeds={"tokens": 1234.5},
        health={"truncation": event},
    )
    assert board.left() == 10.0
    found = line(board, {"loss": 1.5, "mean_token_accuracy": 0.25, "grad_norm": 3.0})
    assert (
        found
        == "step 5/10  loss 1.5  mean_token_accuracy 0.25  1,234.5 tokens/s  0:00:10 left  health: truncation"
    )


def test_what_is_sampled_is_no_markup_and_no_command():
    row = {"prompt": "[red]a", "completion": "b\x1b[2J\nc", "score": 1.0}
    console = terminal()
    console.print(panel(Board("ppo", 1, 2, samples=[row], health={}), 100))
    shown = console.file.getvalue()
    assert "\x1b[2J" not in shown
    assert "[red]a → b\\x1b[2J c" in CONTROL.sub("", shown.replace("\\x1b[2J", "\\x1b[2J"))
    assert "health: nothing found" in shown


def test_a_narrow_terminal_is_not_overrun():
    board = Board("ppo", 1, 2, samples=[{"prompt": "p" * 300, "completion": "c" * 300, "score": 1.0}])
    board.add({"objective/scores": 1.0, "objective/kl": float("nan")})
    assert list(board.curves) == ["objective/scores"]
    console = Console(file=io.StringIO(), width=40)
    console.print(panel(board, 40))
    assert max(map(len, console.file.getvalue().splitlines())) <= 40
