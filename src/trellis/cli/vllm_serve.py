"""`trellis vllm-serve`: a vLLM that samples for a training on other GPUs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

EPILOG = """\
Start it on GPUs of its own, then train on the others:
  CUDA_VISIBLE_DEVICES=0 trellis vllm-serve --model MODEL
  CUDA_VISIBLE_DEVICES=1 trellis grpo --model_name_or_path MODEL --use_vllm true --vllm_mode server …
Who reaches the server can replace its weights. It therefore listens on this machine only; to listen further, set the environment
variable TRELLIS_VLLM_KEY to the same secret here and where the training runs. (No flag takes the key: flags end up in logs.)
"""


def build_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        prog="trellis vllm-serve",
        description="Samples for a training on other GPUs, and takes over its weights after every update.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", required=True, help="the model that is trained: a directory or a name on the hub")
    add("--revision", default=None, help="its branch, tag or commit")
    add("--host", default="127.0.0.1", help="where to listen (default: 127.0.0.1, this machine only)")
    add("--port", type=int, default=8000, help="the port (default: 8000)")
    add("--tensor_parallel_size", type=int, default=1, help="GPUs that hold the model together (default: 1)")
    add("--gpu_memory_utilization", type=float, default=0.9, help="share of the GPU's memory (default: 0.9)")
    add("--dtype", default="auto", help="float32, bfloat16, float16 or auto: the model's own (default: auto)")
    add("--max_model_len", type=int, default=None, help="longest prompt and completion, in tokens")
    add("--enforce_eager", action="store_true", help="no CUDA graphs: slower, less memory")
    add("--kv_cache_dtype", default="auto", help="dtype of the key-value cache (default: auto)")
    add("--trust_remote_code", action="store_true", help="run code that comes with the model")
    add("--vllm_model_impl", default="auto", help="vllm, transformers or auto (default: auto)")
    return parser


def main(argv: Sequence[str]) -> int:
    """Serve until interrupted; 2 for flags that do not fit, 1 where vllm is missing."""
    parser = build_parser()
    args = parser.parse_args(argv)
    from ..engines import KEY_ENV, EngineServer, VllmHost, is_loopback, require_vllm

    key = os.environ.get(KEY_ENV) or None
    if key is None and (args.host in ("", "0.0.0.0", "::") or not is_loopback(args.host)):
        parser.error(
            f"--host {args.host} lets other machines replace the model's weights, and there is no key; set the environment "
            f"variable {KEY_ENV} to a secret (here and where the training runs), or listen on --host 127.0.0.1"
        )
    try:
        vllm = require_vllm()
    except ImportError as error:
        parser.exit(1, f"trellis vllm-serve: error: {error}\n")
    names = ("revision", "tensor_parallel_size", "gpu_memory_utilization", "dtype", "max_model_len")
    more = ("enforce_eager", "kv_cache_dtype", "trust_remote_code")
    options = {name: getattr(args, name) for name in (*names, *more)}
    server = EngineServer(
        lambda: VllmHost(vllm, args.model, model_impl=args.vllm_model_impl, **options),
        host=args.host,
        port=args.port,
        key=key,
    )
    print(f"trellis vllm-serve: {args.model} on http://{args.host}:{server.port}", flush=True)
    try:
        server.serve()
    except KeyboardInterrupt:
        server.close()
    return 0
