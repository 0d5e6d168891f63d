"""The settings of runs beside the defaults and beside each other."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from typing import Any

from ..checkpoint import redacted
from .meanings import TRAINERS
from .reading import OWN, Run

MISSING = "–"


@dataclass(frozen=True)
class Setting:
    """One setting that is no default in some run, or not the same in all: as texts; `differs` between the runs."""

    name: str
    default: str
    values: list[str]
    differs: bool


def defaults(trainer: str) -> dict[str, Any]:
    """What the trainer's config has where nothing is set; empty for a trainer that is none of ours."""
    kind = trainer.removesuffix("Trainer")
    if kind not in TRAINERS:
        return {}
    config = getattr(importlib.import_module("..", __package__), f"{kind}Config")
    with redirect_stderr(StringIO()):  # a config says on which machine it is made
        return redacted(config(output_dir="run"))


def settings(runs: Sequence[Run]) -> list[Setting]:
    """The settings worth a look, those in which the runs differ first."""
    usual = {run.trainer: defaults(run.trainer) for run in runs}
    names = dict.fromkeys(
        name for run in runs for name in run.config if name not in ("output_dir", "logging_dir")
    )
    found = []
    for name in names:
        values = [_text(run.config[name]) if name in run.config else MISSING for run in runs]
        own = [_text(usual[run.trainer][name]) if name in usual[run.trainer] else MISSING for run in runs]
        differs = len(set(values)) > 1
        if differs or values != own or name in OWN[:1]:
            shown = own[0] if len(set(own)) == 1 else ", ".join(dict.fromkeys(own))
            found.append(Setting(name, shown, values, differs))
    return sorted(found, key=lambda setting: not setting.differs)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
