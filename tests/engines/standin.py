"""A vllm on the CPU: the part of its documented interface that Trellis uses, over a transformers model.

It refuses what vLLM would refuse (an argument it does not have, a parameter it does not know), and its workers are mixed with
the extension class by name, as vLLM's are. What it cannot show is that the real one behaves as documented.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from trellis import rollout
from trellis.engines import EngineServer, VllmHost


@dataclass(frozen=True)
class StructuredOutputsParams:
    regex: str | None = None


@dataclass(frozen=True)
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    max_tokens: int | None = 16
    stop_token_ids: list[int] = field(default_factory=list)
    ignore_eos: bool = False
    logprobs: int | None = None
    detokenize: bool = True
    structured_outputs: StructuredOutputsParams | None = None


@dataclass(frozen=True)
class Logprob:
    logprob: float
    rank: int = 1


class Loads:
    """A model with vLLM's load_weights."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def load_weights(self, weights: Any) -> set[str]:
        own, loaded = dict(self.module.named_parameters()), set()
        for name, tensor in weights:
            if name not in own:
                raise KeyError(f"{name} is no parameter of this model")
            with torch.no_grad():
                own[name].copy_(tensor)
            loaded.add(name)
        return loaded


class LLM:
    """One engine with one worker."""

    def __init__(
        self,
        model: str,
        *,
        worker_extension_cls: str,
        logprobs_mode: str,
        dtype: str = "float32",
        max_model_len: int | None = None,
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        enable_sleep_mode: bool = False,
        model_impl: str = "auto",
        distributed_executor_backend: str | None = None,
    ) -> None:
        assert logprobs_mode == "processed_logprobs"
        self.module = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        place, _, name = worker_extension_cls.rpartition(".")
        extension = getattr(importlib.import_module(place), name)
        self.worker = type("Worker", (extension,), {})()
        self.worker.rank, self.worker.device = 0, torch.device("cpu")
        self.worker.model_runner = SimpleNamespace(model=Loads(self.module))
        self.llm_engine = SimpleNamespace(
            model_config=SimpleNamespace(
                hf_config=self.module.config, max_model_len=max_model_len or 512, dtype=self.module.dtype
            )
        )
        self.sleeps, self.asleep = enable_sleep_mode, False
        self.asked: list[SamplingParams] = []
        self.events: list[str] = []

    def generate(
        self, prompts: Sequence[dict[str, Any]], params: list[SamplingParams], *, use_tqdm: bool
    ) -> list[Any]:
        assert not self.asleep
        self.events.append("generate")
        self.asked += params
        return [self._one(p["prompt_token_ids"], s) for p, s in zip(prompts, params, strict=True)]

    def _one(self, prompt: list[int], params: SamplingParams) -> Any:
        assert params.n == 1
        assert params.ignore_eos
        request = rollout.SamplingParams(
            params.max_tokens,
            temperature=params.temperature or 1.0,
            top_k=params.top_k,
            top_p=params.top_p,
            min_p=params.min_p,
            repetition_penalty=params.repetition_penalty,
            stop_ids=frozenset(params.stop_token_ids),
            greedy=params.temperature == 0,
        )
        (done,) = rollout.sample(self.module, [prompt], request, seeds=[params.seed or 0])
        seen = done.logps if request.greedy else done.sampler_logps
        logprobs = [{token: Logprob(value)} for token, value in zip(done.ids, seen, strict=True)]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(done.ids), logprobs=logprobs)])

    def collective_rpc(
        self, method: str, timeout: float | None = None, args: tuple[Any, ...] = ()
    ) -> list[Any]:
        assert not self.asleep
        self.events.append(method)
        return [getattr(self.worker, method)(*args)]

    def reset_prefix_cache(self) -> bool:
        self.events.append("reset_prefix_cache")
        return True

    def _to_host(self, level: int = 1) -> None:
        assert self.sleeps
        self.asleep = True

    sleep = _to_host

    def wake_up(self, tags: list[str] | None = None) -> None:
        self.asleep = False


VLLM = SimpleNamespace(
    LLM=LLM,
    SamplingParams=SamplingParams,
    sampling_params=SimpleNamespace(StructuredOutputsParams=StructuredOutputsParams),
)


@contextmanager
def serving(model: Any, **options: Any) -> Iterator[EngineServer]:
    """`trellis vllm-serve` for the model in directory `model`, on a free port of this machine."""
    key = options.pop("key", None)
    server = EngineServer(lambda: VllmHost(VLLM, str(model), **options), port=0, key=key)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join(timeout=10)


def free_port() -> int:
    """A port of this machine on which nobody listens."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
