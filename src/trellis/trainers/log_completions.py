"""What the model writes to the evaluation prompts, every so many steps: in the terminal, in trackers, in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ..models import unwrap
from ..models.sharded import whole
from ..monitor import send, show
from ..monitor.completions import write_table
from ..rollout import SamplingParams, sample
from .online_setup import known_stops

MAX_NEW_TOKENS = 128


class LogCompletionsCallback(TrainerCallback):
    """Samples completions of the first `num_prompts` prompts of the trainer's evaluation data (default: all) every `freq` steps
    (default: `eval_steps`): a table in the terminal and in trackers, all steps' in `output_dir/eval_completions.parquet`.

    `generation_config`: a transformers GenerationConfig, of which the length, the temperature and the filters are read (greedy
    without do_sample=True, as there); without one, 128 tokens at temperature 1. The draws depend on the seed, the step and the
    prompt. Raises ValueError for a trainer without evaluation data, or whose rows have no prompt.
    """

    def __init__(
        self,
        trainer: Any,
        generation_config: Any = None,
        num_prompts: int | None = None,
        freq: int | None = None,
    ) -> None:
        if trainer.eval_dataset is None:
            raise ValueError(
                "LogCompletionsCallback needs prompts, but the trainer has no evaluation data; pass eval_dataset="
            )
        if freq is not None and freq < 1:
            raise ValueError(
                f"LogCompletionsCallback: freq={freq}, expected at least 1, or None for eval_steps"
            )
        self.trainer, self.freq = trainer, freq
        self.prompts = _prompts(trainer.eval_dataset, num_prompts)
        self.params = _params(generation_config, trainer)
        self.table: list[dict[str, Any]] = []
        self._last = -1

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        every = self.freq or int(state.eval_steps or 0)
        if not every or state.global_step % every or state.global_step == self._last:
            return
        self._last = state.global_step
        rows = self.written(state.global_step)  # of all processes, as a model may lie in pieces
        if not state.is_world_process_zero:
            return
        self.table += [{"step": state.global_step, **row} for row in rows]
        show(rows, title=f"step {state.global_step}")
        send(self.table, name="completions", step=state.global_step, callbacks=self._others())
        write_table(self.table, Path(args.output_dir) / "eval_completions")

    def _others(self) -> Sequence[Any]:
        return self.trainer.callback_handler.callbacks

    def written(self, step: int) -> list[dict[str, str]]:
        """{"prompt", "completion"} of every prompt, as the weights are now."""
        trainer = self.trainer
        model = unwrap(getattr(unwrap(trainer.model), "policy", trainer.model))
        seeds = [(trainer.args.seed * 1_000_003 + step) * 1_000 + i for i in range(len(self.prompts))]
        rows = trainer.args.per_device_eval_batch_size
        with trainer.accelerator.autocast(), whole(model):
            found = sample(model, self.prompts, self.params, seeds=seeds, rows=rows)
        decode = trainer.processing_class.decode
        return [
            {"prompt": decode(prompt), "completion": decode(one.ids, skip_special_tokens=True)}
            for prompt, one in zip(self.prompts, found, strict=True)
        ]


def _prompts(data: Any, count: int | None) -> list[list[int]]:
    """The prompts in prepared rows, as tokens."""
    if isinstance(data, Mapping):
        data = next(iter(data.values()))
    if not hasattr(data, "__len__"):
        raise ValueError("LogCompletionsCallback needs evaluation data with a length; found a stream")
    rows = [data[i] for i in range(min(len(data), len(data) if count is None else count))]
    found = [
        list(row.get("prompt_ids") or row.get("input_ids", [])[: row.get("prompt_len", 0)]) for row in rows
    ]
    if not found or not all(found):
        raise ValueError(
            "LogCompletionsCallback needs prompts, but an evaluation row has none; give rows with `prompt` and `completion` "
            "(or `chosen`, `rejected`)"
        )
    return found


def _params(given: Any, trainer: Any) -> SamplingParams:
    """A GenerationConfig as what our sampler knows."""
    stops = known_stops(trainer.processing_class, unwrap(trainer.model))
    if given is None:
        return SamplingParams(MAX_NEW_TOKENS, stop_ids=stops)
    read = {
        name: getattr(given, name, None)
        for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    }
    greedy = not given.do_sample
    if greedy:
        read["temperature"] = None
    return SamplingParams(
        given.max_new_tokens or MAX_NEW_TOKENS,
        stop_ids=stops,
        greedy=greedy,
        **{name: value for name, value in read.items() if value is not None},
    )
