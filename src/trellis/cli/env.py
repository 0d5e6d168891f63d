"""`trellis env`: the versions that matter in a bug report, and what this machine lacks."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib import metadata

CORE = ("torch", "transformers", "accelerate", "datasets", "peft", "safetensors", "rich", "matplotlib")
OPTIONAL = {
    "bitsandbytes": "load_in_4bit and load_in_8bit",
    "deepspeed": "sharding over several GPUs",
    "vllm": "use_vllm, trellis vllm-serve",
    "wandb": "report_to wandb",
    "tensorboard": "report_to tensorboard",
    "trackio": "report_to trackio",
}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> list[str]:
    import torch

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kind = (
        f"{torch.accelerator.device_count()} x {device.type}" if device else "none (training runs on the CPU)"
    )
    lines = [f"accelerator  {kind}", f"threads      {torch.get_num_threads()}"]
    if device is not None and device.type == "cuda":
        lines.append(
            f"model        {torch.cuda.get_device_name()}, bfloat16 {torch.cuda.is_bf16_supported()}"
        )
    return lines


def report() -> list[str]:
    """One line per fact."""
    from .. import __version__

    lines = [f"trellis      {__version__}", f"python       {platform.python_version()}"]
    lines.append(f"platform     {platform.system()} {platform.release()} {platform.machine()}")
    lines += [f"{name:<12} {version}" for name in (*CORE, *OPTIONAL) if (version := _version(name))]
    if _version("torch"):
        lines += _machine()
    lines += [f"missing      {name}: pip install {name}" for name in CORE if not _version(name)]
    return lines + [f"optional     {name} ({use})" for name, use in OPTIONAL.items() if not _version(name)]


def main(argv: Sequence[str]) -> int:
    """Print the report; 1 when something that training needs is missing."""
    if argv:
        print(
            "usage: trellis env   (takes no flags)",
            file=sys.stderr if argv[0] not in ("-h", "--help") else sys.stdout,
        )
        return 0 if argv[0] in ("-h", "--help") else 2
    lines = report()
    print("\n".join(lines))
    return int(any(line.startswith("missing") for line in lines))
