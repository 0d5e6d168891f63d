"""Several processes from one command: what is asked for, what comes up, how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from tests import warm
from tests.builders import tiny_model, tiny_tokenizer
from tests.ranks import environment, run_ranks
from trellis import checkpoint
from trellis.cli import main
from trellis.cli.launch import ALSO, FOLDER, PRESETS, _status, requested

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "accelerate_configs"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with a tiny policy and texts."""
    home = tmp_path_factory.mktemp("launch")
    tokenizer = tiny_tokenizer()
    tiny_model("llama", tokenizer).save_pretrained(home / "policy")
    tokenizer.save_pretrained(home / "policy")
    lines = (f'{{"text": "the battery lasts {i} days and more"}}' for i in range(40))
    (home / "texts.jsonl").write_text("\n".join(lines))
    return home


def words(home: Path, out: Path, **flags: object) -> list[str]:
    given = {"model_name_or_path": home / "policy", "dataset_name": home / "texts.jsonl", "output_dir": out}
    return [f"--{name}={value}" for name, value in {**given, **flags}.items()]


# ---- the command line ------------------------------------------------------------------------------------------------------


def test_what_is_about_launching_is_taken_out():
    launch, rest = requested(
        ["--lr", "1", "--nproc", "4", "--accelerate=zero3", "--config", "r.yaml", "--nprocs", "2"]
    )
    assert (launch.nproc, launch.config) == (4, FOLDER / "zero3.yaml")
    assert rest == ["--lr", "1", "--config", "r.yaml", "--nprocs", "2"]
    assert requested(["--lr", "1"]) == (None, ["--lr", "1"])
    assert requested(["--nproc", "2"])[0].config.name == "ddp.yaml"


def test_presets_answer_to_their_names_in_trl():
    for name, ours in ALSO.items():
        assert requested(["--num_processes", "2", "--accelerate_config", name])[0].config.stem == ours


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--nproc", "none"], "--nproc none: expected a number of processes, at least 1"),
        (["--nproc", "0"], "at least 1"),
        (["--nproc"], "expected --nproc N"),
        (["--nproc", "2", "--accelerate", "zero4"], "neither a preset (ddp, fsdp2, zero2, zero3) nor a file"),
        (["--nproc", "2", "--accelerate", "SELF"], "is no config that accelerate reads"),
        (["--nproc", "2", "--accelerate", "MACHINES"], "2 machines"),
    ],
)
def test_a_wrong_launch_is_one_line(flags, says, capsys, tmp_path):
    far = tmp_path / "far.yaml"
    far.write_text((FOLDER / "ddp.yaml").read_text().replace("num_machines: 1", "num_machines: 2"))
    names = {"SELF": __file__, "MACHINES": str(far)}
    assert main(["sft", *(names.get(flag, flag) for flag in flags)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("trellis sft: error: ")
    assert said.count("\n") == 1
    assert says in said


def test_a_rank_starts_no_ranks():
    done = warm.run("-m", "trellis.cli", "sft", "--nproc", "2", env=environment(LOCAL_RANK=0, RANK=0))
    assert done.returncode == 2
    assert "was started by torchrun or accelerate launch; leave them out" in done.stderr


def test_help_tells_of_it(capsys):
    with pytest.raises(SystemExit):
        main(["sft", "--nproc", "2", "--help"])
    assert "--accelerate ddp|fsdp2|zero2|zero3|FILE" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("preset", PRESETS)
def test_accelerate_reads_the_presets(preset):
    kinds = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
    config = load_config_from_file(str(FOLDER / f"{preset}.yaml"))
    assert config.distributed_type.value == kinds[preset]
    assert config.mixed_precision in (None, "no")  # precision follows the machine, or --bf16


def test_the_examples_are_the_presets():
    names = {"fsdp2": "fsdp2", **ALSO}
    assert {path.stem for path in EXAMPLES.iterdir()} == set(names)
    for name, preset in names.items():
        assert (EXAMPLES / f"{name}.yaml").read_text() == (FOLDER / f"{preset}.yaml").read_text()


@pytest.mark.parametrize(
    ("ends", "status"), [([(5, -15), (4, 75)], 75), ([(1, 124), (2, -9)], 124), ([(1, -9), (2, -15)], 137)]
)
def test_the_status_is_the_first_ranks_own(ends, status):
    assert _status([SimpleNamespace(timestamp=at, exitcode=code) for at, code in ends]) == status


# ---- what comes up ---------------------------------------------------------------------------------------------------------


def came_up() -> dict[str, object]:
    """What a rank sees that was not told that there are no GPUs."""
    from trellis import SFTConfig

    args = SFTConfig()
    return {
        "world": args.world_size,
        "rank": args.process_index,
        "cpu": args.use_cpu,
        "type": str(args.device),
    }


def test_ranks_come_together_without_being_told_that_there_is_no_gpu():
    cpu = {"world": 2, "cpu": True, "type": "cpu:0"}
    assert run_ranks(came_up) == [{**cpu, "rank": rank} for rank in (0, 1)]


def alone() -> str:
    """What is said to one of two started processes which the other never joins."""
    from accelerate import PartialState

    from trellis import SFTConfig

    del os.environ["LOCAL_RANK"]
    PartialState()
    try:
        SFTConfig()
    except ValueError as error:
        return str(error)
    return "nothing"


def test_trainings_side_by_side_are_refused():
    assert all("2 processes were started, but 1 came together" in said for said in run_ranks(alone))


@pytest.mark.slow
def test_accelerate_launch_on_cpus_is_found_out(home, tmp_path):
    script = str(ROOT / "examples" / "scripts" / "sft.py")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", script]
    done = subprocess.run(
        [*launch, *words(home, tmp_path)], env=environment(), capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "was asked for several processes and started one" in done.stderr
    assert "trellis VERB … --nproc N" in done.stderr


@pytest.mark.slow
def test_a_launched_run_says_what_came_up_and_can_be_preempted(home, tmp_path):
    flags = words(home, tmp_path / "out", max_steps=100000, save_strategy="no")
    command = ["-m", "trellis.cli", "sft", *flags, "--nproc", "2", "--accelerate", "fsdp2"]
    with warm.start(*command, env=environment()) as run:
        said = ""
        for line in run.stderr:
            said += line
            if "process(es) over" in line:
                run.send_signal(signal.SIGTERM)
        assert run.wait(60) == 75, said
    assert "trellis: 2 process(es) over gloo on cpu: FSDP2, float32" in said
    assert said.count("stopped after step") == 1
    assert checkpoint.resolve_resume(str(tmp_path / "out"), True)
