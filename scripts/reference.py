"""Writes options, metrics, losses, health and old_names of docs/ from the code: `python -m scripts.reference`."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import trellis
from trellis.losses.group import GRPO_LOSSES
from trellis.losses.registry import SUPPLIED
from trellis.metrics import Metric
from trellis.trainers import group_metrics, ppo_metrics
from trellis.trainers.ahead import STALENESS, SYNC
from trellis.trainers.collector import SAMPLING
from trellis.trainers.config import TrellisConfig
from trellis.trainers.on_policy import START

from .health_page import health
from .old_names_page import old_names

DOCS = Path(__file__).resolve().parent.parent / "docs"
TRAINERS = ("SFT", "Reward", "DPO", "KTO", "ORPO", "CPO", "PPO", "RLOO", "GRPO")
COMMANDS = ("ScriptArguments", "ModelConfig", "DatasetMixtureConfig")


def declared(cls: type) -> list[dataclasses.Field]:
    """The fields of the dataclass `cls` that a class of ours declares or overrides, in the order of the constructor."""
    bases = [base for base in cls.__mro__ if base.__module__.startswith("trellis.")]
    names = {name for base in bases for name in base.__dict__.get("__annotations__", {})}
    return [f for f in dataclasses.fields(cls) if f.name in names]


def default_of(field: dataclasses.Field) -> str:
    """The declared default, before anything is decided by the machine."""
    if field.default_factory is not dataclasses.MISSING:
        return repr(field.default_factory())
    return "required" if field.default is dataclasses.MISSING else repr(field.default)


def cell(text: str) -> str:
    """Text that stays inside its column."""
    return " ".join(text.split()).replace("|", "\\|")


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def field_row(field: dataclasses.Field) -> tuple[str, ...]:
    help = field.metadata.get("help", "")
    choices = field.metadata.get("choices")
    if choices:
        help += f" One of {', '.join(map(str, choices))}."
    kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
    return (
        f"`{field.name}`",
        f"`{cell(kind)}`",
        f"`{cell(default_of(field))}`",
        cell(help).replace("<", "&lt;"),
    )


def options() -> str:
    """The page of config fields."""
    common = declared(TrellisConfig)
    shared = {f.name: (f.type, default_of(f)) for f in common}
    parts = [
        "# Options",
        "This page is written from the code (`make snapshot`). Every field is also a flag of the command, with the same name. A "
        "config takes in addition every field of transformers' `TrainingArguments`; those with another default here stand "
        "under *All trainers*.",
    ]
    sections = [("All trainers", common)]
    for name in (*(f"{trainer}Config" for trainer in TRAINERS), *COMMANDS):
        own = [f for f in declared(getattr(trellis, name)) if shared.get(f.name) != (f.type, default_of(f))]
        sections.append((f"`{name}`", own))
    head = ("name", "type", "default", "meaning")
    parts += [f"## {title}\n\n{table(head, map(field_row, fields))}" for title, fields in sections]
    return "\n\n".join(parts) + "\n"


SAMPLERS = [
    START,
    SAMPLING,
    Metric("rewards/NAME/mean", "mean of the reward NAME over the completions it applies to"),
    Metric("rewards/NAME/std", "its standard deviation over these completions"),
    Metric("rewards/NAME/failed", "with on_reward_error='skip': share of completions on which it failed"),
    STALENESS,
    SYNC,
    *ppo_metrics.LOOP,
    *(dataclasses.replace(m, formula=f"{m.formula} (RLOO, GRPO)") for m in group_metrics.LOOP),
]
"""What all trainers that sample log."""


def metrics() -> str:
    """The page of logged names."""
    parts = [
        "# Metrics",
        "This page is written from the code (`make snapshot`). Each name is added up as (sum, count) over micro-batches, steps "
        "and processes and divided once, when it is logged. During evaluation names start with `eval_`. `loss`, `grad_norm`, "
        "`learning_rate` and `epoch` are logged by the loop of transformers.",
    ]
    sections = [
        (f"`{trainer}Trainer`", getattr(trellis, f"{trainer}Trainer").metrics) for trainer in TRAINERS
    ]
    sections.append(("`PPOTrainer`, `RLOOTrainer` and `GRPOTrainer`", SAMPLERS))
    for title, listed in sections:
        rows = [(f"`{m.name}`", cell(m.formula)) for m in listed if not m.hidden]
        parts.append(f"## {title}\n\n{table(('name', 'formula'), rows)}")
    return "\n\n".join(parts) + "\n"


LOSSES = {
    "SFTConfig": ("supervised", "SUPERVISED_LOSSES"),
    "DPOConfig": ("preference", "DPO_LOSSES"),
    "CPOConfig": ("reference_free", "CPO_LOSSES"),
    "KTOConfig": ("unpaired", "UNPAIRED_LOSSES"),
}
SYMBOLS = {
    "SFTConfig": "p is the probability of a trained token.",
    "DPOConfig": "r_c and r_r are log π/π_ref of the chosen and the rejected answer, summed over its tokens; Δ = r_c − r_r; "
    "β is `beta`.",
    "CPOConfig": "No reference: Δ is log π of the chosen answer − log π of the rejected one; γ is `simpo_gamma`. To each, "
    "`cpo_alpha` adds −log π of the chosen answer per token. `alphapo` is `simpo` with `alpha` and without that. `ORPOConfig` "
    "has one loss: −log p̄_c − β log σ(log odds(p̄_c) − log odds(p̄_r)), p̄ the probability per token (Hong et al. 2024, "
    "2403.07691, eq. 6).",
    "KTOConfig": "r is log π/π_ref of an answer, summed over its tokens; z is the optimizer step's mean of r over mismatched "
    "answers, at least 0; w_D and w_U are `desirable_weight` and `undesirable_weight`.",
}


def loss_row(name: str, filed: Any) -> tuple[str, ...]:
    """The first paragraph of a loss's docstring, cut into what it computes and where that is from; its arguments."""
    function = getattr(filed, "function", filed)
    told = cell((inspect.getdoc(function) or "").split("\n\n")[0])
    formula, source = [*re.split(r"\. (?=[A-Z])", told, maxsplit=1), ""][:2]
    knobs = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    shown = ", ".join(f"`{k}`" for k in knobs if k not in SUPPLIED)
    return f"`{name}`", formula.removesuffix("."), source, shown


DIVISORS = {
    "row": "rows, each the mean of its tokens",
    "token": "trained tokens of the optimizer step",
    "rollout": "trained tokens of the rollout, over its optimizer steps",
    "length": "rows × `max_completion_length`",
    "sum": "rows, each the sum of its tokens",
}


def group_losses() -> str:
    """The section of losses on groups of samples, with what each is divided by."""
    rows = []
    for name, filed in GRPO_LOSSES.items():
        named, formula, source, _ = loss_row(name, filed)
        knobs = ", ".join(f"`{knob}`" for knob in filed.knobs)
        rows.append((named, formula, DIVISORS[filed.per], source, knobs))
    head = ("`loss_type`", "per token", "divisor", "source", "arguments")
    return (
        "## `GRPOConfig`\n\n`losses/group.py`, tested in `tests/losses/test_group.py`. ρ is π/π_old of a token, or the geometric "
        'mean of its row\'s with `importance_sampling_level="sequence"` (GSPO, Zheng et al. 2025, 2507.18071); W is their '
        "product; A is the advantage, ε is `epsilon`, ε_high is ε where none is given, δ `delta`, sg stops the gradient. "
        "The divisor is summed over all micro-batches and processes of an optimizer step before its first forward pass. "
        "`RLOOConfig` has one loss: −min(WA, clip(W, 1 − ε, 1 + ε_high)A) per row, over rows.\n\n"
        + table(head, rows)
    )


def losses() -> str:
    """The page of loss types."""
    parts = [
        "# Losses",
        "This page is written from the code (`make snapshot`). A bar means per token, σ is the logistic function and ε "
        "`label_smoothing`. Each loss is a pure function in `src/trellis/losses/`, tested against its "
        "formula in plain Python, gradients included.",
    ]
    for config, (module, registry) in LOSSES.items():
        filed = getattr(importlib.import_module(f"trellis.losses.{module}"), registry)
        rows = [loss_row(name, entry) for name, entry in filed.items()]
        head = ("`loss_type`", "per item", "source", "arguments")
        where = f"`losses/{module}.py`, tested in `tests/losses/test_{module}.py`. {SYMBOLS[config]}"
        parts.append(f"## `{config}`\n\n{where}\n\n{table(head, rows)}")
    parts.append(group_losses())
    return "\n\n".join(parts) + "\n"


def pages() -> dict[Path, str]:
    """{file: the text it should have}."""
    written = {
        "options": options,
        "metrics": metrics,
        "losses": losses,
        "health": health,
        "old_names": old_names,
    }
    return {DOCS / f"{name}.md": write() for name, write in written.items()}


def main(words: list[str]) -> None:
    """Write the pages; with `--check` say which of them are not as they should be, and change nothing."""
    for path, text in pages().items():
        if words == ["--check"]:
            if path.read_text(encoding="utf-8") != text:
                print(f"docs/{path.name} is stale: run `make snapshot`")
            continue
        path.write_text(text, encoding="utf-8")
        print(f"wrote docs/{path.name}")


if __name__ == "__main__":
    main(sys.argv[1:])
