"""From a config's vllm fields to an engine."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from torch import nn

from ..rollout import Engine
from .several import Several
from .vllm_colocate import VllmColocate
from .vllm_server import VllmServer
from .wire import config_of

SERVER = (
    "vllm_server_base_url",
    "vllm_server_host",
    "vllm_server_port",
    "vllm_server_timeout",
    "vllm_group_port",
)
COLOCATE = (
    "vllm_gpu_memory_utilization",
    "vllm_max_model_length",
    "vllm_tensor_parallel_size",
    "vllm_enable_sleep_mode",
    "vllm_model_impl",
)
BOTH = ("vllm_mode", "vllm_structured_outputs_regex")


def engine_for(args: Any, *, model: nn.Module, accelerator: Any = None) -> Engine | None:
    """The engine that `args` asks for, ready to be synchronised with `model`; None where the policy samples in its own process.

    Raises ValueError for fields of a mode that is not used, and whatever keeps the engine from working: ImportError without vllm,
    ConnectionError or TimeoutError without the server, ValueError where that has another model.
    """
    check_fields(args)
    if not args.use_vllm:
        return None
    return (_server if args.vllm_mode == "server" else _colocate)(args, model, accelerator)


def check_fields(args: Any) -> None:
    """Raises ValueError for a vllm field that would change nothing."""
    if not args.use_vllm:
        _refuse(args, SERVER + COLOCATE + BOTH, "use_vllm is False; write use_vllm=True, or leave it out")
    elif args.vllm_mode == "server":
        where = "the server has its own settings (flags of trellis vllm-serve); leave it out, or write vllm_mode='colocate'"
        _refuse(args, COLOCATE, where)
        if args.vllm_server_base_url is not None:
            _refuse(
                args,
                ("vllm_server_host", "vllm_server_port"),
                "vllm_server_base_url says it already; leave it out",
            )
    elif args.vllm_mode == "colocate":
        _refuse(
            args,
            SERVER,
            "there is no server with vllm_mode='colocate'; leave it out, or write vllm_mode='server'",
        )
    else:
        raise ValueError(f"vllm_mode must be 'server' or 'colocate', found {args.vllm_mode!r}")


def _refuse(args: Any, names: tuple[str, ...], why: str) -> None:
    defaults = {field.name: field.default for field in fields(args)}
    for name in names:
        if name in defaults and getattr(args, name) != defaults[name]:
            raise ValueError(f"{name}={getattr(args, name)!r} has no effect: {why}")


def _server(args: Any, model: nn.Module, accelerator: Any) -> VllmServer | Several:
    given = args.vllm_server_base_url or f"http://{args.vllm_server_host}:{args.vllm_server_port}"
    urls = [url.strip() for url in given.split(",")]
    if len(set(urls)) < len(urls):
        raise ValueError(f"vllm_server_base_url={given!r} names a server twice; give each of them once")
    engines = [
        VllmServer(
            url,
            timeout=args.vllm_server_timeout,
            group_port=args.vllm_group_port + number,
            regex=args.vllm_structured_outputs_regex,
            accelerator=accelerator,
        )
        for number, url in enumerate(urls)
    ]
    for engine in engines:
        engine.check(model)
    if len(engines) == 1:
        return engines[0]
    rank, world = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    return Several(engines, rank=rank, world=world)


def _colocate(args: Any, model: nn.Module, accelerator: Any) -> VllmColocate:
    name = config_of(model).name_or_path
    if not name:
        raise ValueError(
            "vllm_mode='colocate' loads the model a second time, by its name, and this one was built without one; save it and "
            "give its directory: model.save_pretrained('DIRECTORY')"
        )
    return VllmColocate(
        name,
        gpu_memory_utilization=args.vllm_gpu_memory_utilization,
        tensor_parallel_size=args.vllm_tensor_parallel_size,
        max_model_length=args.vllm_max_model_length,
        enable_sleep_mode=args.vllm_enable_sleep_mode,
        model_impl=args.vllm_model_impl,
        regex=args.vllm_structured_outputs_regex,
        accelerator=accelerator,
    )
