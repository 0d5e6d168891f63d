"""Runs of the nine trainers by command line: what they are estimated to need, and what torch allocates for them."""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer
from trellis.cli import train
from trellis.cli.estimate import gather
from trellis.plan.kinds import METHODS

SIZES: dict[str, dict[str, int]] = {
    "llama": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4},
    "gpt_neox": {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4},
}
ROWS = 8
ROOT = Path(__file__).resolve().parents[2]
TEXT = "{} the battery lasts all day and the picture is very good " * 3
GOOD, BAD = " it is easy to use and the price is great .", " the sound is bad and it does not work at all ."
PAIRED = ("reward", "dpo", "orpo", "cpo")


def row_of(method: str, i: int) -> dict[str, Any]:
    """A row that the method learns from."""
    prompt = TEXT.format(*range(i, i + 3))
    if method in PAIRED:
        return {"prompt": prompt, "chosen": GOOD * 2, "rejected": BAD}
    if method == "kto":
        return {"prompt": prompt, "completion": GOOD if i % 2 else BAD, "label": bool(i % 2)}
    return {"prompt": prompt, **({"completion": GOOD} if method == "sft" else {})}


def write(place: Path) -> None:
    """The models and data sets of all runs."""
    tokenizer = tiny_tokenizer()
    for kind, sizes in SIZES.items():
        parts = {
            "policy": tiny_model(kind, tokenizer, **sizes),
            "scorer": tiny_classifier(kind, tokenizer, **sizes),
        }
        for name, model in parts.items():
            for part in (model, tokenizer):
                part.save_pretrained(str(place / kind / name))
    for method in METHODS:
        rows = (json.dumps(row_of(method, i)) for i in range(2 * ROWS))
        (place / f"{method}.jsonl").write_text("\n".join(rows))


def words(method: str, kind: str, place: Path) -> list[str]:
    """The command line of two optimizer steps."""
    policy, scorer = str(place / kind / "policy"), str(place / kind / "scorer")
    found = [
        "--dataset_name",
        str(place / f"{method}.jsonl"),
        "--output_dir",
        str(place / "out"),
        "--use_cpu",
    ]
    found += ["--per_device_train_batch_size", str(ROWS), "--max_steps", "2", "--save_strategy", "no"]
    found += ["--disable_tqdm", "true", "--gradient_checkpointing", "false"]
    found += ["--sft_model_path" if method == "ppo" else "--model_name_or_path", policy]
    if method == "ppo":
        found += ["--reward_model_path", scorer, "--value_model_path", scorer, "--response_length", "16"]
        return [*found, "--num_sample_generations", "0", "--num_ppo_epochs", "2"]
    if method in ("grpo", "rloo"):
        found += [
            "--reward_model_name_or_path",
            scorer,
            "--max_completion_length",
            "24",
            "--num_generations",
            "4",
        ]
    return found


def estimated(method: str, kind: str, place: Path) -> dict[str, float]:
    """Bytes by part, and the peak."""
    planned = gather(argparse.Namespace(what=method, method=None, rows=2000), words(method, kind, place))
    memory = planned.job.memory()
    return {**memory.parts, "peak": memory.peak}


def measured(method: str, kind: str, place: Path) -> int:
    """The most bytes that torch's CPU allocator holds at once, from before the models are loaded to the end of training."""
    _, parsed = train.parse(method, words(method, kind, place))
    gc.collect()  # what an earlier run left would be let go in this one
    build = train._online if method in train.ONLINE else train._fine_tuner
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            build(method, *parsed).train()
    assert seen.profiler is not None
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most
