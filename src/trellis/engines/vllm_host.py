"""The one place that touches vllm: an offline `vllm.LLM` behind five verbs, for the server and for colocation alike."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .wire import shape_of

WORKER = "trellis.engines.worker.WeightReceiver"


def require_vllm() -> Any:
    """The vllm package. Raises ImportError with what to type where it is missing or cannot be loaded."""
    # The engine runs in the process that asks for it: workers' methods then take tensors as they are.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    try:
        import vllm
        import vllm.sampling_params
    except ImportError as error:
        raise ImportError(
            f"vllm cannot be imported ({error}); expected on a machine with a GPU: pip install 'trellis-rl[vllm]'"
        ) from error
    return vllm


class VllmHost:
    """A `vllm.LLM`. `vllm`: the package (or what has its LLM, SamplingParams and sampling_params); `options` go to LLM."""

    def __init__(self, vllm: Any, model: str, **options: Any) -> None:
        self._vllm = vllm
        self.model = model
        given = {name: value for name, value in options.items() if value is not None}
        self.llm = vllm.LLM(
            model=model, worker_extension_cls=WORKER, logprobs_mode="processed_logprobs", **given
        )

    def facts(self) -> dict[str, Any]:
        """Who this is: the model's name and shape, its longest text in tokens, its dtype, and each worker's GPU."""
        config = self.llm.llm_engine.model_config
        return {
            "model": self.model,
            "shape": shape_of(config.hf_config),
            "max_model_len": config.max_model_len,
            "dtype": str(config.dtype).removeprefix("torch."),
            "devices": self.call("trellis_device"),
        }

    def generate(self, asked: dict[str, Any]) -> list[tuple[list[int], list[float]]]:
        """(token ids, their log-probabilities after temperature and filters) of each row of a `wire.request`.

        Each row is a request with its own seed, so that it does not depend on its neighbours' draws; vLLM's prefix cache shares
        a prompt between its rows.
        """
        n, prompts = asked["n"], asked["prompts"]
        seeds: Sequence[int | None] = asked.get("seeds") or [None] * (n * len(prompts))
        rows = [{"prompt_token_ids": prompt} for prompt in prompts for _ in range(n)]
        outputs = self.llm.generate(rows, [self._params(asked, seed) for seed in seeds], use_tqdm=False)
        return [_row(output.outputs[0]) for output in outputs]

    def _params(self, asked: dict[str, Any], seed: int | None) -> Any:
        regex = asked.get("structured_outputs_regex")
        more = {}
        if regex:
            more["structured_outputs"] = self._vllm.sampling_params.StructuredOutputsParams(regex=regex)
        names = (
            "max_tokens",
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "repetition_penalty",
            "stop_token_ids",
        )
        return self._vllm.SamplingParams(
            **{name: asked[name] for name in names if name in asked},
            seed=seed,
            logprobs=0,  # of the sampled token alone
            ignore_eos=True,  # what ends a completion is in stop_token_ids
            detokenize=False,
            **more,
        )

    def call(self, method: str, *args: Any) -> list[Any]:
        """What `method` of each worker answers."""
        return self.llm.collective_rpc(method, args=args)

    def load(self, weights: list[tuple[str, Tensor]]) -> None:
        """Take over tensors of this process."""
        self.call("trellis_load", weights)

    def forget(self) -> None:
        """Drop what was computed with earlier weights."""
        self.llm.reset_prefix_cache()

    def sleep(self) -> None:
        """Move the weights to the host's memory and give up the key-value cache's."""
        self.llm.sleep(level=1)

    def wake(self) -> None:
        """Undo `sleep`."""
        self.llm.wake_up()


def _row(output: Any) -> tuple[list[int], list[float]]:
    ids = [int(token) for token in output.token_ids]
    return ids, [float(step[token].logprob) for token, step in zip(ids, output.logprobs, strict=True)]
