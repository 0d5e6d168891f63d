"""Completion tables: what was sampled, with its rewards, in the terminal, in files and in trackers."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from trellis.monitor import CompletionLog, read_completions

PROMPTS = ["1+1=", "1+1=", "2+3=", "2+3="]
ANSWERS = ["2", "3", "5", "[bold]6"]
REWARDS = {"accuracy": torch.tensor([1.0, 0.0, 1.0, float("nan")]), "short": [1, 1, 1, None]}


def filled(folder, **options):
    log = CompletionLog(folder, **{"show": False, **options})
    log.add(3, PROMPTS, ANSWERS, REWARDS, torch.tensor([0.5, -0.5, 0.0, 0.0]))
    return log


class Writer:
    """Keeps what is written, as TensorBoard's writer would."""

    def __init__(self):
        self.tb_writer = self
        self.said = []

    def add_text(self, name, text, step):
        self.said.append((name, text, step))


def test_a_log_is_one_parquet_with_a_row_per_completion(tmp_path):
    path = filled(tmp_path).flush(10)
    assert path == tmp_path / "completions" / "completions_00010.parquet"
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing is left aside
    rows = read_completions(tmp_path)
    assert [row["completion"] for row in rows] == ANSWERS
    assert rows[1] == {
        "step": 3, "prompt": "1+1=", "completion": "3", "accuracy": 0.0, "short": 1.0, "advantage": -0.5,
    }  # fmt: skip
    assert rows[3]["accuracy"] is None
    assert rows[3]["short"] is None


def test_rollouts_since_the_last_log_share_a_file_and_an_empty_log_writes_none(tmp_path):
    log = filled(tmp_path)
    log.add(4, ["3+3="], ["6"], {"accuracy": [1.0]}, None, {"level": ["easy"]})
    log.flush(5)
    assert log.flush(6) is None
    rows = read_completions(tmp_path)
    assert [row["step"] for row in rows] == [3, 3, 3, 3, 4]
    assert [row["level"] for row in rows] == [None] * 4 + ["easy"]
    assert rows[-1]["short"] is None


def test_messages_numbers_and_other_values_find_their_type(tmp_path):
    log = CompletionLog(tmp_path, show=False)
    chat = [{"role": "user", "content": "hi"}]
    said = [{"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}]
    extra = {
        "turns": [1, 2],
        "seen": [{"a": 1}, "text"],
        "good": torch.tensor([True, False]),
        "mixed": [1, "x"],
    }
    log.add(0, [chat, chat], [said, said], {"r": [1.0, 2.0]}, None, extra)
    log.flush(1)
    row, second = read_completions(tmp_path)
    assert row["prompt"] == '[{"role": "user", "content": "hi"}]'
    assert (row["turns"], row["seen"], row["good"], row["mixed"]) == (1, "{'a': 1}", True, "1")
    assert (second["seen"], second["good"]) == ("text", False)


def test_one_row_per_prompt(tmp_path):
    filled(tmp_path, unique=True).flush(1)
    assert [row["completion"] for row in read_completions(tmp_path)] == ["2", "5"]


def test_the_terminal_shows_some_rows_of_all_prompts(tmp_path, capsys):
    filled(tmp_path, show=True, count=2).flush(7)
    title, head, *lines = capsys.readouterr().out.splitlines()
    assert title == "completions, step 7"
    assert head.split() == ["step", "prompt", "completion", "accuracy", "short", "advantage"]
    assert [line.split()[1] for line in lines] == ["1+1=", "2+3="]
    filled(tmp_path, show=True).flush(8)
    assert len(capsys.readouterr().out.splitlines()) == 6


def test_trackers_get_the_table(tmp_path):
    writer = Writer()
    filled(tmp_path).flush(7, [writer])
    ((name, text, step),) = writer.said
    assert (name, step) == ("completions", 7)
    assert "\\[bold\\]6" in text  # markup is shown as it is written


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rewards": {"short": [1.0]}}, "'short' has 1 entries for 4"),
        ({"extra": {"prompt": ["x"] * 4}}, "'prompt' already"),
        ({"completions": ["x"]}, "'completion' has 1 entries"),
    ],
)
def test_columns_that_do_not_fit_are_named(tmp_path, changes, says):
    columns = {"prompts": PROMPTS, "completions": ANSWERS, "rewards": {}, **changes}
    with pytest.raises(ValueError, match=says):
        CompletionLog(tmp_path).add(0, **columns)


def test_a_count_below_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        CompletionLog(tmp_path, count=0)


def test_memory_is_bounded_where_nobody_logs(tmp_path):
    log = CompletionLog(tmp_path, show=False)
    for step in range(6):
        log.add(step, ["p"] * 4000, ["c"] * 4000, {})
    assert len(log.rows) == 20_000
    assert log.rows[-1]["step"] == 5


def test_without_pyarrow_tables_are_json_lines_and_it_is_said_once(tmp_path):
    code = f"""
import sys
sys.modules["pyarrow"] = None  # as where it is not installed
from trellis.monitor.completions import CompletionLog, read_completions
log = CompletionLog({str(tmp_path)!r}, show=False)
for step in (1, 2):
    log.add(step, ["1+1="], ["2é"], {{"accuracy": [1.0]}})
    print(log.flush(step).name)
print(read_completions({str(tmp_path)!r})[1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "completions_00001.jsonl",
        "completions_00002.jsonl",
        "{'step': 2, 'prompt': '1+1=', 'completion': '2é', 'accuracy': 1.0}",
    ]
    assert done.stderr.count("pyarrow is not installed") == 1
