"""The share of held-out prompts on which a judge prefers the policy's answer to its reference's, at each evaluation."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list, gather_object
from transformers import TrainerCallback

from ..data import prepare_prompts
from ..judges import BasePairwiseJudge, Comparison, compare, win_rate
from ..judges.comparison import hard
from ..models import policy_of
from ..models.sharded import whole
from ..monitor import send, show
from ..monitor.completions import FOLDER, write_table
from ..rollout import sample
from .held_out_prompts import Question, first_set, questions_of, sampling_of
from .seeds import derived_seed

logger = logging.getLogger(__name__)
SHOWN = 8


class WinRateCallback(TrainerCallback):
    """Adds `eval_win_rate` to each evaluation, so that `metric_for_best_model="eval_win_rate"` chooses a checkpoint by it.

    The policy and its reference write with the same draws, so that both have the same luck and an unchanged policy ties. The
    reference's answers are written once, when training begins, by the reference model, by the policy with its adapter off, or,
    where a trainer has no reference, by the policy as it is then; they are kept in `output_dir/completions`, and a resumed run
    reads them there. Answers are sampled in this process, one turn, whatever engine the trainer has.

    `dataset`: prompts, as texts or chats; default: those of the trainer's eval_dataset (of several its first), where a judge sees
    a chat as decoded text. `num_prompts`: how many of them; `generation_config`: how answers are drawn (default: as the trainer
    samples, else at temperature 1). use_soft_judge: `eval_avg_win_prob` is the mean of the judge's probabilities.
    """

    def __init__(
        self,
        judge: BasePairwiseJudge,
        trainer: Any,
        generation_config: Any = None,
        num_prompts: int | None = None,
        shuffle_order: bool = True,
        use_soft_judge: bool = False,
        *,
        dataset: Any = None,
    ) -> None:
        self.judge, self.trainer, self.use_soft_judge = judge, trainer, use_soft_judge
        self.shuffle_order = shuffle_order
        self.split, self.questions = self._questions(dataset, num_prompts)
        longest = max(len(question.ids) for question in self.questions)
        self.sampling = sampling_of(trainer, generation_config, longest)
        self.references: list[str] | None = None

    def _questions(self, dataset: Any, count: int | None) -> tuple[str, list[Question]]:
        """The prefix of the evaluation that is answered, and its prompts."""
        trainer, prefix = self.trainer, "eval_"
        if isinstance(trainer.eval_dataset, dict):
            prefix = f"eval_{next(iter(trainer.eval_dataset))}_"
        if dataset is not None:
            data, _ = prepare_prompts(dataset, trainer.processing_class, name="dataset")
        else:
            data = first_set(trainer.eval_dataset)
        return prefix, questions_of(data, trainer.processing_class, count)

    # ---- what the loop calls -------------------------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The reference's answers: written, or of a resumed run read."""
        kept = self._same([self._kept() if state.global_step else None])[0]
        if state.global_step and kept is None:
            logger.warning(
                "the reference's answers are not in %s, so they are written anew; without a reference model they are those of "
                "step %d", self._file, state.global_step,
            )  # fmt: skip
        self.references = kept or self._of_reference()
        if state.is_world_process_zero:
            self._keep(self.references)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        """Judge, and put the figures where the loop looks for the best checkpoint."""
        if metrics is None or not any(name.startswith(self.split) for name in metrics):
            return
        if self.references is None:
            self.references = self._of_reference()
        answers = self._answers(policy_of(self.trainer.model))
        found = self._judged(answers, state.global_step) if state.is_world_process_zero else {}
        found = self._same([found])[0]
        metrics.update(found)
        self.trainer.log(dict(found))

    # ---- answers -------------------------------------------------------------------------------------------------------

    def _of_reference(self) -> list[str]:
        trainer, policy = self.trainer, policy_of(self.trainer.model)
        reference = getattr(trainer, "reference", None)
        if reference is None and hasattr(trainer, "collector"):
            reference = trainer.collector.means.reference
        if reference is None:
            return self._answers(policy)
        with reference.active(policy) as model:
            return self._answers(model)

    def _answers(self, model: Any) -> list[str]:
        """One answer to each question, on every rank; each writes its part."""
        trainer, mine = self.trainer, range(len(self.questions))
        world, rank = trainer.args.world_size, trainer.args.process_index
        mine = mine[rank::world]
        with trainer.watchdog.during("evaluating"), trainer.accelerator.autocast(), whole(model):
            written = sample(
                model,
                [self.questions[i].ids for i in mine],
                self.sampling,
                seeds=[derived_seed(trainer.args.seed, "win rate", i) for i in mine],
                rows=max(1, trainer.args.per_device_eval_batch_size),
            )
        decode = trainer.processing_class.decode
        part = [(i, decode(c.ids, skip_special_tokens=True)) for i, c in zip(mine, written, strict=True)]
        return [text for _, text in sorted(part if world == 1 else gather_object(part))]

    def _same(self, value: list[Any]) -> list[Any]:
        """The main process's value, on every rank."""
        return value if self.trainer.args.world_size == 1 else broadcast_object_list(value)

    # ---- the verdict ---------------------------------------------------------------------------------------------------

    def _judged(self, answers: list[str], step: int) -> dict[str, float]:
        assert self.references is not None
        prompts = [question.said for question in self.questions]
        try:
            with self.trainer.watchdog.during("evaluating"):
                found = compare(
                    self.judge,
                    prompts,
                    answers,
                    self.references,
                    soft=self.use_soft_judge,
                    shuffle_order=self.shuffle_order,
                )
        except (ConnectionError, TimeoutError) as error:
            # A judge elsewhere that is down is not worth the run; NaN is never the best.
            logger.warning("step %d has no win rate: %s", step, error)
            return {"eval_win_rate": math.nan}
        self._show(prompts, answers, found, step)
        return self._figures(found)

    def _figures(self, found: Comparison) -> dict[str, float]:
        rate = win_rate([hard(vote) for vote in found.votes])
        figures = {
            "eval_win_rate": rate.rate,
            "eval_win_rate_low": rate.low,
            "eval_win_rate_high": rate.high,
            "eval_win_rate_length_controlled": found.length_controlled.rate,
            "eval_win_rate_ties": float(rate.ties),
            "eval_win_rate_invalid": float(rate.invalid),
        }
        if self.use_soft_judge:
            figures["eval_avg_win_prob"] = found.rate.rate
        return figures

    def _show(self, prompts: Sequence[Any], answers: list[str], found: Comparison, step: int) -> None:
        assert self.references is not None
        table = [
            {"step": step, "prompt": prompt, "completion": answer, "reference": other, "win": vote}
            for prompt, answer, other, vote in zip(
                prompts, answers, self.references, found.votes, strict=True
            )
        ]
        write_table(table, Path(self.trainer.args.output_dir) / FOLDER / f"win_rate_{step:05d}")
        few = [{name: row[name] for name in row if name != "step"} for row in table[:SHOWN]]
        show(few, title=f"win rate at step {step}: {found.rate}")
        send(few, name="win_rate", step=step, callbacks=self.trainer.callback_handler.callbacks)

    # ---- kept for a resumed run ----------------------------------------------------------------------------------------

    @property
    def _file(self) -> Path:
        return Path(self.trainer.args.output_dir) / FOLDER / "win_rate_reference.json"

    def _keep(self, answers: list[str]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        kept = {"prompts": [question.ids for question in self.questions], "answers": answers}
        self._file.write_text(json.dumps(kept), encoding="utf-8")

    def _kept(self) -> list[str] | None:
        """The answers, where they are there and to the same prompts."""
        try:
            kept = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        same = kept["prompts"] == [question.ids for question in self.questions]
        return kept["answers"] if same else None
