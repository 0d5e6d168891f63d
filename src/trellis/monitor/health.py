"""Health of a run: rules read its log, say once what is wrong, keep it in `health.jsonl`, and may stop the run or go back."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from .health_rules import RULES, Rule
from .health_signs import LONGEST, Stream

logger = logging.getLogger(__name__)
FILE = "health.jsonl"
QUIET = 4
"""Points without a finding after which an episode of it is over."""


@dataclass(frozen=True)
class Event:
    """Something was found at `step`, or (`event="cleared"`) is there no more."""

    step: int
    name: str
    event: str
    message: str
    advice: str


class Diagnoses:
    """The rules of a method over a stream of logs: each says what it found once, and once when that is over."""

    def __init__(self, method: str, pairs: int = 0) -> None:
        self.rules = [rule for rule in RULES if method in rule.methods]
        self.stream = Stream(method, pairs)
        self.open: dict[str, Event] = {}
        self._quiet: dict[str, int] = {}

    def hear(self, point: Mapping[str, Any]) -> list[Event]:
        """Take in one log of training; what began and what ended with it."""
        self.stream.add(point)
        step = int(point["step"])
        changes = (
            self._change(rule, self._found(rule), step) for rule in self.rules if rule.finds is not None
        )
        return [event for event in changes if event is not None]

    def _found(self, rule: Rule) -> str | None:
        self.stream.believe(rule.name in self.open)
        return None if rule.finds is None else rule.finds(self.stream)

    def told(self, name: str, found: str | None, step: int) -> Event | None:
        """What somebody else found for rule `name`, advice included (None: nothing any more)."""
        rule = replace(next(rule for rule in RULES if rule.name == name), advice="")
        if found is None:
            self._quiet[name] = QUIET
        return self._change(rule, found, step)

    def _change(self, rule: Rule, found: str | None, step: int) -> Event | None:
        if found is not None:
            self._quiet[rule.name] = 0
            if rule.name in self.open:
                return None
            self.open[rule.name] = Event(step, rule.name, "found", found, rule.advice)
            return self.open[rule.name]
        self._quiet[rule.name] = self._quiet.get(rule.name, 0) + 1
        if rule.name not in self.open or self._quiet[rule.name] < QUIET:
            return None
        before = self.open.pop(rule.name)
        return Event(step, rule.name, "cleared", f"it was found at step {before.step}", "")


class Health(TrainerCallback):
    """Reads every log of a trainer by the rules (where `health` is set). All processes decide alike; the first one speaks."""

    def __init__(self, trainer: Any, method: str) -> None:
        self.trainer, self.method = trainer, method
        self.diagnoses = Diagnoses(method)

    @property
    def open(self) -> dict[str, Event]:
        """What is wrong now, by rule."""
        return self.diagnoses.open

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.diagnoses = Diagnoses(self.method, args.train_batch_size * args.world_size * _parts(args))
        before = [r for r in state.log_history if "loss" in r and r["step"] <= state.global_step]
        for point in before[:LONGEST] + before[LONGEST:][-2 * LONGEST :]:
            self.diagnoses.hear(point)
        if state.is_world_process_zero:
            kept = [e for e in read_health(args.output_dir) if e["step"] <= state.global_step]
            path = Path(args.output_dir) / FILE
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = kept if state.global_step else []
            path.write_text("".join(json.dumps(e) + "\n" for e in kept), encoding="utf-8")

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if not args.health or not logs or "loss" not in logs:
            return
        for event in self.diagnoses.hear({**logs, "step": state.global_step}):
            self._say(event)
            self._answer(event, control)

    def tell(self, name: str, found: str | None) -> None:
        """What the trainer itself found for rule `name`, advice included; None: it is over."""
        if not self.trainer.args.health:
            return
        event = self.diagnoses.told(name, found, self.trainer.state.global_step)
        if event is not None:
            self._say(event)
            self._answer(event, self.trainer.control)

    def _say(self, event: Event) -> None:
        trainer = self.trainer
        if not trainer.is_world_process_zero():
            return
        if event.event == "found":
            advice = f". {event.advice[0].upper()}{event.advice[1:]}" if event.advice else ""
            logger.warning("health, step %d: %s: %s%s", event.step, event.name, event.message, advice)
        else:
            logger.info("health, step %d: %s is over (%s)", event.step, event.name, event.message)
        try:
            with (Path(trainer.args.output_dir) / FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(event)) + "\n")
        except OSError as error:  # a full disk: a line is not worth the run
            logger.warning("step %d is not in %s: %s", event.step, FILE, error)

    def _answer(self, event: Event, control: Any) -> None:
        """Stop the run, or go back to its last checkpoint, where that was asked for."""
        trainer, args = self.trainer, self.trainer.args
        if event.event != "found":
            return
        if event.name in (args.roll_back_on_health or ()):
            folder = trainer.bad_steps.go_back(f"{event.name}: {event.message}")
            self.diagnoses = Diagnoses(self.method, self.diagnoses.stream.pairs)
            logger.warning("health: %s: went back to the weights of %s", event.name, folder)
        if event.name in (args.stop_on_health or ()):
            control.should_training_stop = True
            logger.warning(
                "health: the run stops at step %d, as stop_on_health has %s", event.step, event.name
            )


def _parts(args: Any) -> int:
    return int(args.gradient_accumulation_steps)


def read_health(folder: str | Path) -> list[dict[str, Any]]:
    """The events of a run's `health.jsonl`, or of the file itself: step, name, event, message, advice."""
    path = Path(folder)
    path = path / FILE if path.is_dir() else path
    return [] if not path.exists() else list(_events(path.read_text(encoding="utf-8").splitlines()))


def _events(lines: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:  # a killed run's last line
            continue
    return found
