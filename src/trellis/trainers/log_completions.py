"""What the model writes to the evaluation prompts, every so many steps: in the terminal, in trackers, in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ..models import policy_of
from ..models.sharded import whole
from ..monitor import send, show
from ..monitor.completions import write_table
from ..rollout import sample
from .held_out_prompts import first_set, questions_of, sampling_of
from .seeds import derived_seed

MAX_NEW_TOKENS = 128
GIVE = "pass eval_dataset= with rows of `prompt` and `completion` (or `chosen`, `rejected`)"


class LogCompletionsCallback(TrainerCallback):
    """Samples completions of the first `num_prompts` different prompts of the trainer's evaluation data (default: all; of several
    sets the first) every `freq` steps (default: `eval_steps`): a table in the terminal and in trackers, all steps' in
    `output_dir/eval_completions.parquet`.

    `generation_config`: a transformers GenerationConfig, of which the length, the temperature and the filters are read (greedy
    without do_sample=True, as there); without one, as the trainer samples, else at temperature 1; without a length, at most 128
    tokens. The draws depend on the seed, the step and the prompt's number. Raises ValueError for a trainer without evaluation
    data, for rows that have no prompt, and for beams.
    """

    def __init__(
        self,
        trainer: Any,
        generation_config: Any = None,
        num_prompts: int | None = None,
        freq: int | None = None,
    ) -> None:
        if freq is not None and freq < 1:
            raise ValueError(
                f"LogCompletionsCallback: freq={freq}, expected at least 1, or None for eval_steps"
            )
        self.trainer, self.freq = trainer, freq
        data = first_set(trainer.eval_dataset)
        found = questions_of(data, trainer.processing_class, num_prompts, give=GIVE)
        self.prompts = [question.ids for question in found]
        params = sampling_of(trainer, generation_config, max(map(len, self.prompts)))
        if getattr(generation_config, "max_new_tokens", None) is None:
            params = replace(params, max_new_tokens=min(MAX_NEW_TOKENS, params.max_new_tokens))
        self.params = params
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
        model = policy_of(trainer.model)
        seeds = [derived_seed(trainer.args.seed, "completions", step, i) for i in range(len(self.prompts))]
        rows = trainer.args.per_device_eval_batch_size
        with trainer.accelerator.autocast(), whole(model):
            found = sample(model, self.prompts, self.params, seeds=seeds, rows=rows)
        decode = trainer.processing_class.decode
        return [
            {"prompt": decode(prompt), "completion": decode(one.ids, skip_special_tokens=True)}
            for prompt, one in zip(self.prompts, found, strict=True)
        ]
