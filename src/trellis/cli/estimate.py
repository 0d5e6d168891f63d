"""`trellis estimate`: the memory and the time that a run needs, before it is started, and what would save some."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..plan.job import Job
    from .settings import Settings

WRITTEN = re.compile(r"[a-z_]+: ")
"""A switch that is a setting, and not the lack of one."""
ROWS_READ = 2000
"""Rows of which lengths are taken, unless --rows says another number."""

EPILOG = """\
CONFIG is a recipe (.yaml) as for `trellis METHOD --config`; METHOD is one of sft, reward, dpo, kto, orpo, cpo, ppo, grpo, rloo,
with the flags that it will be trained with:
  trellis estimate dpo --model_name_or_path my-sft --dataset_name pairs.jsonl --output_dir my-dpo
  trellis estimate ppo --sft_model_path my-sft --reward_model_path my-reward --value_model_path my-reward …
No weights are read: the models' configs say their sizes, and rows are read as the
trainer would. --nproc N and --accelerate ddp|zero2|zero3|fsdp2 say how it will be started, as for training.
Exit status: 0 it fits, 1 it does not, 2 for a wrong command line.
"""


@dataclass
class Planned:
    """A job, its settings, and how it will be started."""

    job: Job
    settings: Settings
    world: int
    sharding: str


def build_parser() -> argparse.ArgumentParser:
    """The flags of the estimate itself."""
    parser = argparse.ArgumentParser(
        prog="trellis estimate",
        description="Says how much memory and time a run needs on each device, and which settings would need less.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("what", metavar="CONFIG|METHOD", help="a recipe, or a method with its flags")
    add("--method", help="which one a recipe is for, where it does not say")
    add("--memory", type=float, metavar="GIB", help="of each device (default: this machine's)")
    add("--rows", type=int, default=ROWS_READ, metavar="N", help=f"look at N rows (default: {ROWS_READ})")
    add("--no_time", action="store_true", help="leave out the time, and the short measurement for it")
    return parser


def main(argv: Sequence[str]) -> int:
    """Print the estimate; 1 where the run does not fit."""
    asked, rest = build_parser().parse_known_args(argv)
    from ..plan.estimate import Estimate
    from ..plan.machine import this_machine

    try:
        planned = gather(asked, rest)
        machine = this_machine()
        room = machine.memory if asked.memory is None else int(asked.memory * 2**30)
        found = Estimate(planned.job, machine, room, planned.world, planned.sharding)
        print(*found.lines(with_time=not asked.no_time), sep="\n")
    except (ValueError, TypeError, ImportError, OSError) as error:
        print(f"trellis estimate: error: {error}", file=sys.stderr)
        return 2
    print("next: " + next_command(asked.what, (argv, rest), planned, found))
    return 0 if found.fits else 1


def next_command(what: str, words: tuple[Sequence[str], Sequence[str]], planned: Planned, found: Any) -> str:
    """Train where it fits, else the same estimate with the best switch. words: as typed, and without the estimate's own."""
    import shlex

    from .settings import is_recipe

    typed, rest = words
    if found.fits:
        recipe = ["--config", what] if is_recipe(what) else []
        return shlex.join(["trellis", planned.settings.method, *recipe, *rest])
    better = next((saving for saving in found.savings() if WRITTEN.match(saving.write)), None)
    if better is None:
        return "a smaller model, shorter rows, or more devices (--nproc N --accelerate zero3)"
    settings = [part.split(": ") for part in better.write.split(" with ")]
    return shlex.join(
        ["trellis", "estimate", *typed, *(w for name, value in settings for w in ("--" + name, value))]
    )


def gather(asked: argparse.Namespace, rest: Sequence[str]) -> Planned:
    """The job that the command line means. Ends with status 2 where the method's own flags or recipe are wrong."""
    from ..plan.kinds import METHODS
    from .settings import is_recipe, method_of, settings

    launch, words = started(rest)
    if is_recipe(asked.what):
        method = asked.method or method_of(asked.what)
        words = ["--config", asked.what, *words]
    elif asked.what in METHODS:
        method = asked.what
    else:
        raise ValueError(f"{asked.what}: expected a recipe (.yaml) or one of {', '.join(METHODS)}")
    found = settings(method, words, complete=True)
    return Planned(job_of(method, found, asked.rows), found, *launch)


def started(rest: Sequence[str]) -> tuple[tuple[int, str], list[str]]:
    """((processes, sharding), the other words)."""
    from ..plan.memory import SHARDINGS
    from .launch import requested

    launch, words = requested(rest)
    if launch is None:
        return (1, "ddp"), words
    kind = launch.config.stem.removeprefix("deepspeed_").replace("multi_gpu", "ddp")
    if kind not in SHARDINGS:
        raise ValueError(f"--accelerate {launch.config}: expected one of {', '.join(SHARDINGS)}")
    return (launch.nproc, kind), words


def job_of(method: str, found: Settings, rows: int) -> Job:
    """What a method's settings train on what."""
    from ..plan.job import ONLINE, Job, items_of, run_of
    from ..plan.models_of import trained_shape
    from ..plan.reading import read, tokenizer_for
    from .arguments import get_peft_config
    from .settings import policy_of

    args, model = found.args, found.model
    name: Any = policy_of(method, found, given=True)
    if method == "reward" and model.use_peft:
        model.lora_task_type = "SEQ_CLS"
    shape, adapter = trained_shape(name, get_peft_config(model), classifier=method == "reward")
    data, _ = found.splits()
    looked = [dict(row) for row in islice(iter(data), rows)]
    reading = read(looked, method, args, tokenizer_for(method, None, name, args))
    items = items_of(reading, args)
    total = len(data) if hasattr(data, "__len__") else len(looked)
    quantized = 0.6 if model.load_in_4bit else 1.1 if model.load_in_8bit else 0.0
    job: dict[str, Any] = {
        "frozen": _frozen(method, found, shape, adapter),
        "run": run_of(args, weights=model.dtype, quantized=quantized),
        "micro": args.per_device_train_batch_size,
        "accumulation": args.gradient_accumulation_steps,
        "epochs": args.num_train_epochs,
        "max_steps": args.max_steps,
        "most_tokens": args.micro_batch_tokens or 0,
        "rows": round(len(items) * total / len(looked)),
        **(_online(method, args, found.online) if method in ONLINE else {}),
    }
    return Job(method, shape, items, adapter=adapter, **job)


def _frozen(method: str, found: Settings, shape: Any, adapter: int) -> dict[str, Any]:
    """{what for: shape} of the models that are not trained."""
    from ..plan.job import ONLINE
    from ..plan.models_of import shape_of

    args, frozen = found.args, {}
    kept = method == "ppo" or (method in ("grpo", "rloo") and args.beta > 0)
    kept = kept or (method in ("dpo", "kto") and not args.precompute_ref_log_probs)
    away = getattr(args, "offload_reference", False) and method in ONLINE and args.device.type != "cpu"
    if kept and not away and not adapter and not getattr(args, "reference_free", False):
        frozen["reference"] = shape
    if method in ONLINE:
        for place, name in enumerate(reward_models(method, found)):
            frozen[f"reward {place + 1}" if place else "reward"] = shape_of(
                name, classifier=True, what="reward model"
            )
    return frozen


def reward_models(method: str, found: Settings) -> list[str]:
    """The names of the models that score completions."""
    from ..rewards.names import named
    from .online import loaded, rewards

    online, args = found.online, found.args
    if method == "ppo":
        default = args.reward_model_path
        if online.reward_model_name_or_path is None and not _is_default(args):
            online.reward_model_name_or_path = default
        given = rewards(online, default=default)
    else:
        given = rewards(online)
    known = [named(f) if isinstance(f, str) else f for f in loaded(given)]
    return [f for f in known if isinstance(f, str)]


def _is_default(args: Any) -> bool:
    from .online import is_default

    return is_default(args, "reward_model_path")


def _online(method: str, args: Any, online: Any) -> dict[str, Any]:
    """How a method samples, and what it does with a rollout."""
    local = args.per_device_train_batch_size * args.gradient_accumulation_steps
    away = bool(getattr(args, "use_vllm", False)) and args.vllm_mode == "server"
    if method == "ppo":
        return {
            "answer": args.response_length,
            "critic": "model" if online.value_model_path else "head",
            "forward_rows": args.local_rollout_forward_batch_size,
            "rollout_rows": local,
            "minibatches": args.num_mini_batches,
            "passes": args.num_ppo_epochs,
            "episodes": args.total_episodes or 0,
        }
    steps = args.steps_per_generation
    asked = args.generation_batch_size or (steps * args.per_device_train_batch_size if steps else local)
    rollout = max(asked, local)
    return {
        "answer": args.max_completion_length or 1,
        "samples": args.num_generations or 1,
        "forward_rows": args.per_device_train_batch_size,
        "rollout_rows": rollout,
        "minibatches": rollout // local,
        "accumulation": args.gradient_accumulation_steps * (rollout // local),
        "passes": args.num_iterations,
        "remote": away,
    }
