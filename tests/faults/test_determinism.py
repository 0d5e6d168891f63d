"""The same seed gives the same weights, whatever the process looked like before; nothing asks for a network; replay says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import tiny_model, tiny_tokenizer
from trellis.cli import main
from trellis.monitor import read_record

from .bad_rows import good
from .trainers import ROWS, build

NO_SOCKETS = """
import socket

class Refused(socket.socket):
    def __init__(self, *args, **kwargs):
        raise PermissionError("a socket was asked for")

def refuse(*args, **kwargs):
    raise PermissionError("a name was looked up")

socket.socket = Refused
socket.create_connection = socket.getaddrinfo = refuse
"""
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")


def hashes(folder: Path, order: str, *, sockets: bool = True, **more: str) -> dict[str, str]:
    """{trainer: hash of its weights} from a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in OFFLINE} | more
    if not sockets:
        (folder / "site").mkdir(parents=True)
        (folder / "site" / "sitecustomize.py").write_text(NO_SOCKETS)
        environment["PYTHONPATH"] = f"{folder / 'site'}{os.pathsep}{environment['PYTHONPATH']}"
    command = [sys.executable, "-m", "tests.faults.every_trainer", str(folder), order]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("HASHES")[2])


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Every trainer's output directory, from a process without sockets and without a word about being offline."""
    folder = tmp_path_factory.mktemp("runs")
    found = hashes(
        folder,
        "forwards",
        sockets=False,
        PYTHONHASHSEED="1",
        HF_TOKEN="hf_" + "Another" * 5,
        WANDB_API_KEY="k" * 40,
    )
    (folder / "hashes.json").write_text(json.dumps(found))
    return folder


@pytest.mark.slow
def test_the_order_of_imports_and_of_hashes_changes_nothing(runs, tmp_path):
    """Fault: another PYTHONHASHSEED, trainers and imports in another order.
    Then: the same weights, to the bit."""
    assert hashes(tmp_path, "backwards", PYTHONHASHSEED="77") == json.loads(
        (runs / "hashes.json").read_text()
    )


@pytest.mark.slow
def test_every_trainer_runs_where_sockets_are_forbidden(runs):
    """Fault: a machine on which no socket can be opened and no name looked up.
    Then: every trainer trains and saves; nothing is asked for at import or while training."""
    assert sorted(json.loads((runs / "hashes.json").read_text())) == sorted(ROWS)
    blocked = {**os.environ, "PYTHONPATH": str(runs / "site")}
    asked = subprocess.run(
        [sys.executable, "-c", "import socket; socket.socket()"], env=blocked, capture_output=True
    )
    assert b"a socket was asked for" in asked.stderr


@pytest.mark.slow
def test_no_secret_is_written(runs):
    """Fault: tokens in the config and in the environment.
    Then: no file of the output directory holds them."""
    secrets = [b"hf_FakeToken", b"hf_Another", b"k" * 40]
    files = [path for path in runs.rglob("*") if path.is_file() and path.name != "sitecustomize.py"]
    assert len(files) > 100
    assert [path for path in files for secret in secrets if secret in path.read_bytes()] == []


@pytest.mark.slow
def test_a_checkpoint_holds_no_pickle_but_those_that_are_read_as_weights_only(runs):
    """Fault: a checkpoint directory from somebody else.
    Then: weights are safetensors, records are JSON; the loop's three files are zip archives read with weights_only."""
    files = [path for path in runs.rglob("*") if path.is_file() and "site" not in path.parts]
    pickles = {path.name for path in files if path.suffix in (".bin", ".pt", ".pth", ".pkl", ".pickle")}
    assert pickles == {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    raw = [
        path for path in files if path.read_bytes()[:1] == b"\x80"
    ]  # the first byte of every binary pickle
    assert raw == []


@pytest.mark.slow
def test_replay_runs_a_command_again_and_compares(tmp_path, capsys):
    """Fault: the question whether a run can be repeated.
    Then: `trellis replay RUN` runs it from its record and says equal, or where the first difference is."""
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in good("language") * 2))
    (tmp_path / "recipe.yaml").write_text(
        "learning_rate: 1e-2\nenv: {MY_API_KEY: hunter2}\nreport_to: [none]\n"
    )
    where = ["--model_name_or_path", str(tmp_path / "model"), "--dataset_name", str(tmp_path / "rows.jsonl")]
    what = [
        "--use_cpu",
        "--max_steps",
        "3",
        "--logging_steps",
        "1",
        "--save_strategy",
        "no",
        "--disable_tqdm",
        "true",
    ]
    run = tmp_path / "run"
    before = dict(os.environ)
    try:
        main(
            [
                "sft",
                "--config",
                str(tmp_path / "recipe.yaml"),
                *where,
                *what,
                "--output_dir",
                str(run),
                "--hub_token",
                "hunter3",
            ]
        )
    finally:
        os.environ.clear()
        os.environ.update(before)
    record = (run / "run.json").read_text()
    assert "hunter" not in record
    (tmp_path / "recipe.yaml").unlink()  # the record has it
    assert main(["replay", str(run)]) == 0
    assert "equal" in capsys.readouterr().out
    assert read_record(f"{run}-replay")["result"] == read_record(run)["result"]

    history = run / "metrics.jsonl"
    history.write_text(history.read_text().replace('"step": 2', '"step": 2, "loss_of_another": 1', 1))
    assert main(["replay", str(run), "--against", f"{run}-replay"]) == 1
    assert "step 2: loss_of_another is 1 and None" in capsys.readouterr().out


def refusal(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["replay", *words])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_a_script_is_not_run_again_but_compared(tmp_path, capsys):
    """Fault: `trellis replay` of a run that a Python script started.
    Then: exit status 2, what the record lacks, and how to compare two such runs."""
    for name in ("a", "b", "c"):
        build(
            "SFT", tmp_path / name, good("language"), fresh=True, learning_rate=1e-2, seed=1 + (name == "c")
        ).train()
    assert "was started by a script" in refusal(capsys, str(tmp_path / "a"))
    assert main(["replay", str(tmp_path / "a"), "--against", str(tmp_path / "b")]) == 0
    assert main(["replay", str(tmp_path / "a"), "--against", str(tmp_path / "c")]) == 1
    assert "weights" in capsys.readouterr().out
    assert "holds no run.json" in refusal(capsys, str(tmp_path))
    (tmp_path / "run.json").write_text("[")
    assert "is no JSON" in refusal(capsys, str(tmp_path))


def test_other_data_has_another_fingerprint(tmp_path):
    first = build("SFT", tmp_path / "a", good("language"), fresh=True)
    other = build("SFT", tmp_path / "b", [*good("language")[:3], {"text": "another"}], fresh=True)
    for trainer in (first, other):
        trainer.train()
    a, b = (read_record(tmp_path / name)["data"] for name in "ab")
    assert a["rows"] == b["rows"] == a["hashed"] == 4
    assert a["sha256"] != b["sha256"]
