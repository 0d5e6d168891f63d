"""What GRPO and RLOO have in common: several completions per prompt, judged against each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from ..data.prepare import check_limit
from ..engines.choose import check_fields
from ..rollout import SamplingParams
from .ahead import check_ahead
from .config import TrellisConfig, config, option
from .old_fields import GROUP
from .old_names import Old
from .schedule import Schedule
from .unused import ON_POLICY

SAMPLED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


@config
class GroupConfig(TrellisConfig):
    """Arguments of trainers that sample `num_generations` completions of each prompt.

    per_device_train_batch_size counts completions; an optimizer step has per_device_train_batch_size ×
    gradient_accumulation_steps × ranks of them, a rollout steps_per_generation / gradient_accumulation_steps such steps.
    """

    renamed: ClassVar[Mapping[str, str | Old]] = GROUP
    unused: ClassVar[Mapping[str, str]] = ON_POLICY

    learning_rate: float = option(1e-6, "Peak learning rate of AdamW.")
    model_init_kwargs: dict[str, Any] | str | None = option(
        None, "Keyword arguments of from_pretrained, where the model is given by name."
    )
    model_adapter_name: str | None = option(None, "The adapter to train, where the model has several.")
    ref_adapter_name: str | None = option(None, "The adapter that is the reference, where beta is above 0.")
    disable_dropout: bool = option(False, "Set every dropout of policy and reference to 0.")
    dataset_num_proc: int | None = option(None, "Processes that tokenize the data.")
    chat_template_kwargs: dict[str, Any] | str | None = option(
        None, "Further keyword arguments of the chat template."
    )
    shuffle_dataset: bool | None = option(True, "Take the prompts of an epoch in random order.")
    max_prompt_length: int | None = option(
        None, "A prompt with more tokens loses its beginning (counted); None: no limit."
    )

    num_generations: int | None = option(8, "Completions per prompt.")
    num_generations_eval: int | None = option(
        None, "Completions per prompt in evaluation; default: num_generations."
    )
    max_completion_length: int | None = option(256, "Longest completion in tokens.")
    generation_batch_size: int | None = option(
        None, "Completions sampled at once, over all ranks: another way to say steps_per_generation."
    )
    steps_per_generation: int | None = option(
        None,
        "Micro-batches of per_device_train_batch_size completions sampled at once; default: gradient_accumulation_steps.",
    )
    temperature: float = option(1.0, "Sampling temperature; log-probabilities are taken at it everywhere.")
    top_k: int | None = option(None, "Sample among the k most likely tokens; default: all.")
    top_p: float = option(1.0, "Sample among the most likely tokens that hold this probability; 1: all.")
    min_p: float | None = option(
        None, "Sample among tokens at least this likely relative to the likeliest; default: all."
    )
    repetition_penalty: float = option(
        1.0, "Above 1: tokens that the prompt or completion already has become less likely."
    )
    generation_kwargs: dict[str, Any] | str | None = option(
        None,
        "Any of temperature, top_k, top_p, min_p and repetition_penalty, in a dict; they win over the fields.",
    )
    ds3_gather_for_generation: bool = option(True, "Gather ZeRO-3 weights for sampling.")

    rollout_staleness: int = option(
        0,
        "Rollouts that sampling may be ahead. 1: the next one is sampled, in another process, while this one is trained on; "
        "0: in turn.",
    )
    rollout_devices: list[str] | None = option(
        None,
        "Devices of processes that sample, such as cuda:1 or cpu, one process each; default: sampling in this process, or "
        "with rollout_staleness in one more on the same device.",
    )

    use_vllm: bool = option(False, "Sample with vLLM instead of the engine in this process.")
    vllm_mode: str = option(
        "server",
        "server: a process of its own (`trellis vllm-serve`); colocate: inside this one.",
        choices=("server", "colocate"),
    )
    vllm_model_impl: str = option(
        "vllm",
        "vLLM's implementation of the model, or transformers'.",
        choices=("vllm", "transformers", "auto"),
    )
    vllm_enable_sleep_mode: bool = option(False, "colocate: vLLM frees its memory while the model trains.")
    vllm_structured_outputs_regex: str | None = option(None, "Completions must match this.")
    vllm_server_base_url: str | None = option(
        None, "server: its address, instead of host and port; of several servers, all of them, with commas."
    )
    vllm_server_host: str = option("0.0.0.0", "server: its host.")
    vllm_server_port: int = option(8000, "server: its port.")
    vllm_server_timeout: float = option(240.0, "server: seconds to wait for it in all.")
    vllm_group_port: int = option(
        51216, "server: port over which weights travel; each further server has the next one."
    )
    vllm_gpu_memory_utilization: float = option(0.3, "colocate: share of the GPU's memory that vLLM may use.")
    vllm_max_model_length: int | None = option(None, "colocate: longest prompt and completion together.")
    vllm_tensor_parallel_size: int = option(1, "colocate: GPUs that share one copy of the model.")

    beta: float = option(0.0, "Weight of the KL penalty; 0: no reference model is kept.")
    num_iterations: int = option(1, "Passes over a rollout.")
    epsilon: float = option(0.2, "Clip range of the ratio.")
    epsilon_high: float | None = option(None, "Upper clip range of the ratio; default: epsilon.")
    reward_weights: list[float] | None = option(None, "One weight per reward function; default: 1 each.")
    on_reward_error: str = option(
        "raise",
        "A reward that raises, hangs or returns nonsense: raise stops the run; skip counts it as not applicable.",
        choices=("raise", "skip"),
    )
    reward_timeout: float | None = option(
        None, "Seconds that a reward function may take per call; None: any."
    )
    mask_truncated_completions: bool = option(False, "Leave completions that were cut off out of the loss.")
    sync_ref_model: bool = option(False, "Let the reference follow the policy (TR-DPO).")
    ref_model_mixup_alpha: float = option(
        0.6, "The policy's share when the reference follows: α·policy + (1 − α)·reference."
    )
    ref_model_sync_steps: int = option(512, "Optimizer steps between two times that it follows.")

    log_completions: bool = option(
        False, "Show a table of completions at each logging step, and write it to output_dir/completions."
    )
    num_completions_to_print: int | None = option(None, "Rows of the table on the terminal; default: all.")
    log_unique_prompts: bool = option(False, "One completion per prompt in the table.")

    def __post_init__(self) -> None:
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            self.metric_for_best_model = "reward"
        super().__post_init__()
        for name in ("max_prompt_length", "max_completion_length", "ref_model_sync_steps", "num_iterations"):
            check_limit(name, getattr(self, name))
        for name in ("steps_per_generation", "generation_batch_size", "num_generations_eval"):
            check_limit(name, getattr(self, name))
        self._check_ranges()
        check_fields(self)
        check_ahead(self)
        self.sampling(frozenset())

    def _check_ranges(self) -> None:
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        expected = {
            "max_completion_length": (self.max_completion_length is not None, "a number of tokens"),
            "num_generations": (
                (self.num_generations or 0) >= 2,
                "at least 2: a completion is judged against the others of its prompt",
            ),
            "beta": (self.beta >= 0, "at least 0"),
            "epsilon": (0 <= self.epsilon < 1 or high >= 1, "from 0 to below 1"),
            "epsilon_high": (high >= 0, "at least 0"),
            "ref_model_mixup_alpha": (0 < self.ref_model_mixup_alpha <= 1, "above 0 and at most 1"),
            "reward_timeout": (self.reward_timeout is None or self.reward_timeout > 0, "above 0, or None"),
            "num_completions_to_print": (
                self.num_completions_to_print is None or self.num_completions_to_print > 0,
                "above 0, or None",
            ),
            "ds3_gather_for_generation": (
                self.ds3_gather_for_generation,
                "True: sampling needs whole weights",
            ),
            **{
                name: (
                    not getattr(self, name) or self.beta > 0,
                    f"{off}, as beta=0 keeps no reference, or a beta above 0",
                )
                for name, off in (("sync_ref_model", False), ("ref_adapter_name", None))
            },
        }
        for name, (fine, words) in expected.items():
            if not fine:
                raise ValueError(f"{name}={getattr(self, name)}: expected {words}")

    def sampling(self, stops: frozenset[int]) -> SamplingParams:
        """How completions are drawn. Raises ValueError for values outside their range."""
        wanted: dict[str, Any] = {name: getattr(self, name) for name in SAMPLED}
        extra: Any = self.generation_kwargs or {}
        unknown = sorted(set(extra) - set(SAMPLED) - {"do_sample"})
        if unknown or not extra.get("do_sample", True):
            raise ValueError(
                f"generation_kwargs={extra}: expected any of {', '.join(SAMPLED)}; completions are always sampled, and their "
                "longest is max_completion_length"
            )
        wanted |= {name: value for name, value in extra.items() if name != "do_sample"}
        given = {name: value for name, value in wanted.items() if value is not None}
        return SamplingParams(max_new_tokens=self.max_completion_length or 1, stop_ids=stops, **given)

    def schedule(self, prompts: int | None) -> Schedule:
        """The run's arithmetic for `prompts` training prompts (None: a stream). Raises ValueError when it does not come out even,
        with the nearest numbers that do."""
        world, group = self.world_size, self.num_generations or 1
        micro = self.per_device_train_batch_size * world
        step = micro * self.gradient_accumulation_steps
        rows = self._rollout_rows(micro, step)
        if rows % group:
            raise ValueError(self._no_whole_groups(rows, micro, group))
        minibatches = rows // step
        if prompts is not None and rows // group > prompts:
            raise ValueError(
                f"a rollout has {rows // group} prompts ({rows} completions, num_generations={group}), but train_dataset has "
                f"only {prompts}; give more prompts, or at most {prompts * group} completions per rollout"
            )
        if prompts is None and self.max_steps <= 0:
            raise ValueError(
                "train_dataset is a stream without a length; write max_steps=… (optimizer steps)"
            )
        steps = minibatches * self.num_iterations
        if self.max_steps > 0:
            rollouts = -(-self.max_steps // steps)
        else:
            rollouts = max(1, math.ceil(self.num_train_epochs * (prompts or 0) / (rows // group)))
        self.steps_per_generation, self.generation_batch_size = rows // micro, rows
        return Schedule(
            rows=rows,
            samples=group,
            minibatches=minibatches,
            epochs=self.num_iterations,
            micro_rows=self.per_device_train_batch_size,
            rollouts=rollouts,
            world=world,
        )

    def _rollout_rows(self, micro: int, step: int) -> int:
        """Completions per rollout: what was asked for, and at least one optimizer step."""
        asked, size = self.generation_batch_size, self.steps_per_generation
        if asked is not None and size is not None and asked != size * micro:
            raise ValueError(
                f"generation_batch_size={asked} and steps_per_generation={size} (of {micro} completions each) contradict each "
                "other; leave one of them out"
            )
        rows = asked if asked is not None else step if size is None else size * micro
        larger, smaller = max(rows, step), min(rows, step)
        if larger % smaller:
            near = [n for n in (rows // step * step, -(-rows // step) * step) if n]
            raise ValueError(
                f"{rows} completions are sampled at once, an optimizer step takes {step} (per_device_train_batch_size "
                f"{self.per_device_train_batch_size} × gradient_accumulation_steps {self.gradient_accumulation_steps} × "
                f"{self.world_size} rank(s)), and neither divides the other; use generation_batch_size="
                f"{' or '.join(map(str, near))} (steps_per_generation={' or '.join(str(n // micro) for n in near)})"
            )
        return larger

    def _no_whole_groups(self, rows: int, micro: int, group: int) -> str:
        unit = group // math.gcd(group, micro)
        steps = -(-rows // (micro * unit)) * unit
        divisors = [n for n in range(2, rows + 1) if rows % n == 0]
        other = f", or num_generations={min(divisors, key=lambda n: abs(n - group))}" if divisors else ""
        return (
            f"{rows} completions per rollout (per_device_train_batch_size {self.per_device_train_batch_size} × "
            f"{self.world_size} rank(s) × {rows // micro} micro-batches) are no whole groups of num_generations={group}; use "
            f"gradient_accumulation_steps={steps} ({steps * micro // group} prompts per step){other}. "
            "per_device_train_batch_size, the completions per forward pass, may be anything"
        )
