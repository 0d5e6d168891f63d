"""metrics.jsonl holds what was logged, survives a kill, and goes on where a resumed run goes on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.builders import tiny_model, tiny_tokenizer
from trellis.monitor import History, draw_curves, read_history
from trellis.monitor.curves import curves
from trellis.trainers.sft import SFTConfig, SFTTrainer


def run(folder, steps, start=0, main=True):
    args = SimpleNamespace(output_dir=str(folder))
    history, state = History(), SimpleNamespace(global_step=start, is_world_process_zero=main)
    history.on_train_begin(args, state, None)
    for step in steps:
        state.global_step = step
        history.on_log(args, state, None, {"loss": 1.0 / step, "epoch": step / 10})


def test_one_line_per_log(tmp_path):
    run(tmp_path, [1, 2])
    assert read_history(tmp_path) == [
        {"step": 1, "loss": 1.0, "epoch": 0.1},
        {"step": 2, "loss": 0.5, "epoch": 0.2},
    ]


def test_a_resumed_run_goes_on_and_a_new_one_starts_anew(tmp_path):
    run(tmp_path, [1, 2, 3, 4])
    run(tmp_path, [3, 4], start=2)
    assert [r["step"] for r in read_history(tmp_path)] == [1, 2, 3, 4]
    run(tmp_path, [1])
    assert [r["step"] for r in read_history(tmp_path)] == [1]


def test_an_unfinished_line_is_left_out(tmp_path):
    run(tmp_path, [1])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert [r["step"] for r in read_history(tmp_path)] == [1]


def test_non_finite_numbers_are_valid_json_and_seen(tmp_path):
    args, state = (
        SimpleNamespace(output_dir=str(tmp_path)),
        SimpleNamespace(global_step=1, is_world_process_zero=True),
    )
    History().on_log(args, state, None, {"loss": float("nan")})
    assert read_history(tmp_path) == [{"step": 1, "loss": "nan"}]


def test_only_the_main_process_writes(tmp_path):
    run(tmp_path, [1], main=False)
    assert read_history(tmp_path) == []


def test_curves_are_numbers_over_episodes_or_steps():
    records = [
        {"step": 1, "loss": 2.0, "name": "x"},
        {"step": 2, "loss": float("nan")},
        {"step": 3, "loss": 1.0},
    ]
    assert curves(records) == {"loss": [(1.0, 2.0), (3.0, 1.0)]}
    assert curves([{"step": 1, "episode": 64, "kl": 0.5}], ["kl", "none"]) == {"kl": [(64.0, 0.5)]}


def test_a_picture_is_drawn(tmp_path):
    records = [{"step": i, **{f"m{j}": i * j for j in range(6)}} for i in range(5)]
    path = draw_curves(records, tmp_path / "deep" / "c.png", title="T")
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(ValueError, match="no curve"):
        draw_curves([{"step": 1, "loss": 1.0}], tmp_path / "c.png")


def test_every_trainer_keeps_its_history(tmp_path):
    tokenizer = tiny_tokenizer()
    args = SFTConfig(output_dir=str(tmp_path), max_steps=2, logging_steps=1, save_strategy="no")
    trainer = SFTTrainer(
        tiny_model("llama", tokenizer), args, train_dataset=["a b", "c"], processing_class=tokenizer
    )
    trainer.train()
    assert [record["step"] for record in read_history(tmp_path)] == [1, 2, 2]
