"""Writes docs/old_names.md from the tables that constructors and `trellis migrate` read; `scripts.reference` calls it."""

from __future__ import annotations

from trellis.trainers.old_fields import FIELDS, HF_OLD_NAMES
from trellis.trainers.old_keywords import ARGUMENTS, DATASET_KWARGS, MOVED
from trellis.trainers.old_names import Old

BEFORE = """# Old names

This page is written from the tables that the constructors and `trellis migrate` read (`make snapshot`). *Until* is the last
release of TRL, or of transformers, that knew the name. A name under another name is taken with a warning that says so; one that
is not needed any more too. What has another meaning today is one error, which says what to write; the values in brackets did
nothing, and are taken. `tests/migrate/test_history.py` holds every name of the constructors and configs of TRL 0.4 to 0.29
against these tables and tries each.
"""


def written(entry: Old) -> str:
    """What is to be written today."""
    if entry.new:
        return f"`{entry.new}`"
    if entry.harmless is None:
        return f"nothing: {entry.why}"
    fine = ", ".join(f"`{value!r}`" for value in entry.harmless if value is not None)
    return f"{entry.why}{f' ({fine})' if fine else ''}"


def rows(table: dict[str, Old]) -> str:
    """A table of old names."""
    lines = [
        f"| `{name}` | {entry.until} | {written(entry)} |".replace("<", "&lt;")
        for name, entry in table.items()
    ]
    return "\n".join(["| old | until | today |", "| --- | --- | --- |", *lines])


def old_names() -> str:
    """The page."""
    parts = [BEFORE, "## Every config: names of transformers 4\n\n" + rows(HF_OLD_NAMES)]
    for config, table in FIELDS.items():
        own = {name: entry for name, entry in table.items() if name not in HF_OLD_NAMES}
        if own:
            parts.append(f"## `{config}`\n\n{rows(own)}")
        if config == "SFTConfig":
            parts.append("In its `dataset_kwargs`:\n\n" + rows(DATASET_KWARGS))
    for trainer, table in ARGUMENTS.items():
        config = trainer.replace("Trainer", "Config")
        moved = ", ".join(f"`{name}`" for name in MOVED[trainer])
        says = (
            f"\n\nFields of `{config}` that the constructor takes as well, with a warning: {moved}."
            if moved
            else ""
        )
        parts.append(f"## Arguments of `{trainer}`\n\n{rows(table)}{says}")
    return "\n\n".join(part.strip() for part in parts) + "\n"
