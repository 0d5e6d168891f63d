"""`trellis VERB … --nproc N [--accelerate PRESET]`: a verb in several processes of this machine, by accelerate on torchrun.

Ranks meet at a port that is free. Signals reach all of them, and the exit status is the one of the rank that ended first: 75 for
a run that can be resumed, 124 for one that hung, 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PRESETS = {
    "ddp": "a whole copy of the model per process",
    "fsdp2": "weights, gradients and optimizer cut over processes, by torch",
    "zero2": "gradients and optimizer cut over processes, by DeepSpeed",
    "zero3": "weights too, by DeepSpeed",
}
ALSO = {"multi_gpu": "ddp", "deepspeed_zero2": "zero2", "deepspeed_zero3": "zero3"}
"""The presets' names in TRL."""
FOLDER = Path(__file__).resolve().parent.parent / "accelerate_configs"
HELP = (
    "several processes: --nproc N starts the verb N times on this machine, as one training; --accelerate "
    f"{'|'.join(PRESETS)}|FILE says how the model lies on them (default ddp; a FILE is one of accelerate's configs)"
)


@dataclass(frozen=True)
class Launch:
    """What a command line asks for: `nproc` processes, set up by accelerate's config file `config`."""

    nproc: int
    config: Path


def requested(argv: Sequence[str]) -> tuple[Launch | None, list[str]]:
    """(the launch that `argv` asks for, or None; everything else in `argv`).

    Raises ValueError for a number that is none, a preset or file that does not exist, and inside of another launcher.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--nproc", "--num_processes")
    finder.add_argument("--accelerate", "--accelerate_config")
    try:
        found, rest = finder.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise ValueError(
            f"{error.argument_name}: {error.message}; expected --nproc N, --accelerate PRESET"
        ) from error
    if found.nproc is None and found.accelerate is None:
        return None, rest
    if "LOCAL_RANK" in os.environ:
        raise ValueError(
            "--nproc and --accelerate start processes, but this one was started by torchrun or accelerate launch; leave them out"
        )
    return Launch(_count(found.nproc), _file(found.accelerate or "ddp")), rest


def _count(text: str | None) -> int:
    if text is not None:
        if text.isdecimal() and int(text):
            return int(text)
        raise ValueError(f"--nproc {text}: expected a number of processes, at least 1")
    import torch

    if not torch.accelerator.is_available():
        raise ValueError("--accelerate needs --nproc N where there are no GPUs to count")
    return torch.accelerator.device_count()


def _file(name: str) -> Path:
    path = FOLDER / f"{ALSO.get(name, name)}.yaml"
    if path.is_file():
        return path
    if Path(name).is_file():
        return Path(name)
    raise ValueError(
        f"--accelerate {name}: neither a preset ({', '.join(PRESETS)}) nor a file of `accelerate config`"
    )


def start(launch: Launch, words: Sequence[str]) -> int:
    """`trellis WORDS` in all processes, to its end; the exit status.

    Raises ValueError where accelerate refuses its config file, ImportError where the sharding is not installed.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    flags = ["--config_file", str(launch.config), "--num_processes", str(launch.nproc)]
    flags += ["--main_process_port", "0", "--module", "trellis.cli", *words]
    args = launch_command_parser().parse_args(flags)
    args.standalone = True  # a port is chosen and held at once, not looked up first
    args.signals_to_handle = (
        "SIGHUP,SIGQUIT"  # torchrun's own answer to SIGTERM kills after 30 s, saved or not
    )
    _check(launch, args)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // launch.nproc)))
    with _passed_on():
        try:
            launch_command(args)
        except ChildFailedError as failed:
            return _status(failed.failures.values())
    return 0


def _check(launch: Launch, args: Any) -> None:
    """Say what accelerate would say later, or not at all."""
    from accelerate.commands.config.config_args import load_config_from_file

    try:
        config: Any = load_config_from_file(str(launch.config))
    except Exception as error:  # whatever reading a file of any content raises
        said = " ".join(str(error).split())
        raise ValueError(f"{launch.config} is no config that accelerate reads: {said[:300]}") from error
    if getattr(config, "num_machines", 1) > 1:
        raise ValueError(
            f"{launch.config} is about {config.num_machines} machines, and --nproc starts processes on this one; type "
            f"accelerate launch --config_file {launch.config} … -m trellis.cli … on each machine"
        )
    kind = str(getattr(config.distributed_type, "value", config.distributed_type))
    if kind == "DEEPSPEED":
        _require_deepspeed(launch)
    if kind in ("NO", "MULTI_CPU"):  # accelerate would start one process, whatever the number
        args.multi_gpu = launch.nproc > 1


def _require_deepspeed(launch: Launch) -> None:
    from importlib.util import find_spec

    if find_spec("deepspeed") is None:
        raise ImportError(
            f"{launch.config.name} needs DeepSpeed, which is not installed; type pip install 'trellis-rl[deepspeed]', or choose "
            "--accelerate ddp or fsdp2"
        )


@contextmanager
def _passed_on() -> Iterator[None]:
    """Inside, SIGTERM and SIGINT go to the ranks, which save and end by themselves."""
    import psutil

    def pass_on(number: int, frame: Any) -> None:
        for rank in psutil.Process().children():
            rank.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _status(failures: Iterable[Any]) -> int:
    """The status of the rank that ended first; the others were ended because of it, by a signal."""
    ended = sorted(failures, key=lambda failure: failure.timestamp)
    own = [failure.exitcode for failure in ended if failure.exitcode > 0]
    return own[0] if own else 128 - ended[0].exitcode


def main(verb: str, argv: Sequence[str]) -> tuple[int | None, list[str]]:
    """(the exit status of several processes, None where none were asked for; the words that are not about launching)."""
    try:
        launch, rest = requested(argv)
        if launch is None or {"-h", "--help"} & set(rest):
            return None, rest
        return start(launch, [verb, *rest]), rest
    except (ValueError, ImportError) as error:
        print(f"trellis {verb}: error: {error}", file=sys.stderr)
        return 2, []
