"""`trellis env`: the versions that matter in a bug report, and what this machine lacks."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

CORE = (
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "peft",
    "safetensors",
    "rich",
    "jinja2",
    "matplotlib",
)
OPTIONAL = {
    "bitsandbytes": "load_in_4bit and load_in_8bit",
    "deepspeed": "sharding over several GPUs",
    "vllm": "use_vllm, trellis vllm-serve",
    "math-verify": "accuracy rewards that compare expressions",
    "wandb": "report_to wandb",
    "tensorboard": "report_to tensorboard",
    "trackio": "report_to trackio",
}
FLASH = {"flash_attention_2": "flash-attn", "kernels' flash attention": "kernels"}
"""Ways to attend that other packages bring."""


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> list[str]:
    """The accelerators with their memory, and what of them works."""
    import torch

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kind = (
        f"{torch.accelerator.device_count()} x {device.type}" if device else "none (training runs on the CPU)"
    )
    lines = [f"accelerator  {kind}", f"threads      {torch.get_num_threads()}"]
    if device is not None and device.type == "cuda":
        for number in range(torch.cuda.device_count()):
            told = torch.cuda.get_device_properties(number)
            lines.append(
                f"device {number}     {told.name}, {told.total_memory / 2**30:.0f} GiB, compute {told.major}.{told.minor}"
            )
        lines.append(f"libraries    CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    return lines + [f"{name:<12} {words}" for name, words in _supported(torch, device)]


def _supported(torch: Any, device: Any) -> list[tuple[str, str]]:
    """What can be asked for here, and what it takes where it cannot."""
    cuda = device is not None and device.type == "cuda"
    half = torch.cuda.is_bf16_supported() if cuda else device is None or device.type != "mps"
    backends = [
        name
        for name, there in (("nccl", "is_nccl_available"), ("gloo", "is_gloo_available"))
        if _has(torch, there)
    ]
    attention = ["sdpa", "eager", *(["flex_attention"] if cuda else [])]
    attention += [name for name, package in FLASH.items() if cuda and _version(package)]
    return [
        (
            "bfloat16",
            "yes" + ("" if cuda else ", slowly: no accelerator computes in it here") if half else "no",
        ),
        ("attention", ", ".join(attention)),
        ("processes", ", ".join(backends) + " (--nproc N, ddp and fsdp2)" if backends else "one only"),
        ("zero2, zero3", "yes" if _version("deepspeed") else "no: pip install deepspeed"),
        (
            "use_vllm",
            "yes"
            if _version("vllm") and cuda
            else "no: " + ("pip install vllm" if cuda else "needs a CUDA device"),
        ),
        ("4, 8 bits", "yes" if _version("bitsandbytes") else "no: pip install bitsandbytes"),
    ]


def _has(torch: Any, there: str) -> bool:
    return torch.distributed.is_available() and getattr(torch.distributed, there)()


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
