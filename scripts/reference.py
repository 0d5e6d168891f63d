"""Writes docs/options.md and docs/metrics.md from the configs and the metric registries: `python -m scripts.reference`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import trellis
from trellis.trainers.config import TrellisConfig

DOCS = Path(__file__).resolve().parent.parent / "docs"
TRAINERS = ("SFT", "Reward", "DPO", "KTO", "ORPO", "CPO", "PPO")
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


def metrics() -> str:
    """The page of logged names."""
    parts = [
        "# Metrics",
        "This page is written from the code (`make snapshot`). Each name is added up as (sum, count) over micro-batches, steps "
        "and processes and divided once, when it is logged. During evaluation names start with `eval_`.",
    ]
    for trainer in TRAINERS:
        listed = [m for m in getattr(trellis, f"{trainer}Trainer").metrics if not m.hidden]
        rows = [(f"`{m.name}`", cell(m.formula)) for m in listed]
        parts.append(f"## `{trainer}Trainer`\n\n{table(('name', 'formula'), rows)}")
    return "\n\n".join(parts) + "\n"


def pages() -> dict[Path, str]:
    """{file: the text it should have}."""
    return {DOCS / "options.md": options(), DOCS / "metrics.md": metrics()}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote docs/{path.name}")
