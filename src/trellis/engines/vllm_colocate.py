"""The engine that samples on the training's own GPUs: a vLLM in each training process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ..rollout import Completion, SamplingParams
from .ranks import Ask, Together, merged
from .vllm_host import VllmHost, require_vllm
from .weights import weights_of
from .wire import check_prompts, completions, config_of, request, shape_of


class VllmColocate:
    """Samples with a vLLM of `model_id` in this process, on a share of its GPU.

    tensor_parallel_size: so many neighbouring ranks hold one vLLM together and sample for each other; enable_sleep_mode: between
    rollouts its weights go to the host's memory and its cache is given up; regex: what completions must match. `vllm`: the
    package, where it is not to be imported.
    """

    exact = False

    def __init__(
        self,
        model_id: str,
        *,
        gpu_memory_utilization: float = 0.3,
        tensor_parallel_size: int = 1,
        max_model_length: int | None = None,
        enable_sleep_mode: bool = False,
        model_impl: str = "auto",
        regex: str | None = None,
        accelerator: Any = None,
        vllm: Any = None,
    ) -> None:
        world = 1 if accelerator is None else accelerator.num_processes
        if tensor_parallel_size < 1 or world % tensor_parallel_size:
            raise ValueError(
                f"vllm_tensor_parallel_size={tensor_parallel_size} does not divide the {world} training processes; with "
                "vllm_mode='colocate' ranks share a vLLM among themselves"
            )
        self._host = VllmHost(
            vllm or require_vllm(),
            model_id,
            gpu_memory_utilization=gpu_memory_utilization,
            tensor_parallel_size=tensor_parallel_size,
            max_model_len=max_model_length,
            enable_sleep_mode=enable_sleep_mode,
            model_impl=model_impl,
            # Inside a launched group vLLM must use its ranks instead of starting its own.
            distributed_executor_backend="external_launcher" if world > 1 else None,
        )
        self.facts, self.regex = self._host.facts(), regex
        self.step: int | None = None
        self._sleeps, self._asleep = enable_sleep_mode, False
        group = dist.new_subgroups(tensor_parallel_size)[0] if tensor_parallel_size > 1 else None
        self._together = None if group is None else Together(self._sample_all, group)

    def sync(self, model: nn.Module, step: int) -> None:
        """Take over the weights of `model` unless those of `step` are here."""
        if step == self.step:
            return
        ours, theirs = shape_of(config_of(model)), self.facts["shape"]
        if ours != theirs:
            raise ValueError(
                f"vLLM loaded {self.facts['model']!r} ({theirs}), the trained model is another ({ours}); train a model that was "
                "loaded from where its name_or_path says"
            )
        self._wake()
        device = next(model.parameters()).device.type
        # Folding an adapter in is no part of the training's autocast.
        with torch.no_grad(), torch.autocast(device, enabled=False):
            for weight in weights_of(model):
                self._host.load([(weight.name, weight.read())])
        self._host.forget()
        self.step = step

    def __call__(
        self, prompts: Sequence[Sequence[int]], params: SamplingParams, *, n: int = 1, seeds: Sequence[int]
    ) -> list[Completion]:
        """See `rollout.Sampler`; both kinds of log-probabilities are those after temperature and filters."""
        ask = Ask(prompts, params, n, seeds)
        if self._together is None:
            return self._sample(ask)
        if self._together.open:
            return self._together.ask(ask) or []
        with self.together():
            return self._together.ask(ask) or []

    @contextmanager
    def together(self) -> Iterator[None]:
        """Inside this block ranks that share a vLLM sample for each other, and it stays awake; every rank enters and leaves."""
        if self._together is None:
            yield
        else:
            with self._together.rounds():
                yield
        self._sleep()

    def close(self) -> None:
        """Give up its memory on the GPU, where it can sleep."""
        self.step = None
        self._sleep()

    def _sample_all(self, asks: list[Ask]) -> list[list[Completion]]:
        return merged(asks, self._sample)

    def _sample(self, ask: Ask) -> list[Completion]:
        if not ask.prompts:
            return []
        if self.step is None:
            raise ValueError("this engine has no weights yet; call sync(model, step) before sampling")
        vocabulary = self.facts["shape"]["vocab_size"]
        check_prompts(ask.prompts, ask.params, vocabulary=vocabulary, room=self.facts["max_model_len"])
        self._wake()
        rows = self._host.generate(
            request(ask.prompts, ask.params, n=ask.n, seeds=ask.seeds, regex=self.regex)
        )
        answer = {"completion_ids": [ids for ids, _ in rows], "logprobs": [logps for _, logps in rows]}
        return completions(answer, ask.params, rows=ask.rows, vocabulary=vocabulary, source="vllm")

    def _wake(self) -> None:
        if self._asleep:
            self._host.wake()
            self._asleep = False

    def _sleep(self) -> None:
        if self._sleeps and not self._asleep:
            self._host.sleep()
            self._asleep = True
