"""Configs in a script: old fields under today's names, each by the table that the constructors read too."""

from __future__ import annotations

import ast
import json
from typing import Any

from ..trainers.old_fields import FIELDS, HF_OLD_NAMES
from ..trainers.old_keywords import DATASET_KWARGS
from ..trainers.old_names import Old
from .names import Names, keyword
from .source import UNKNOWN, Source, literal

TABLES: dict[str, dict[str, Old]] = {**FIELDS, "TrainingArguments": HF_OLD_NAMES}


def move_fields(source: Source, names: Names) -> None:
    """Rewrite the old fields of every config that the script makes."""
    for call in names.calls(*TABLES):
        owner = names.known(call.func) or ""
        taken = {k.arg for k in call.keywords}
        for item in call.keywords:
            if item.arg is None:
                _spread(source, names, owner, item)
            elif item.arg == "dataset_kwargs" and set(names.keys(item.value)) <= set(DATASET_KWARGS):
                source.remove_item(item, [*call.args, *call.keywords])
                names.dropped.add(item)
                source.note(item, source.of(item), "", "it said nothing that is not so by itself")
            elif item.arg in TABLES[owner] and not names.gone(item):
                _field(source, names, call, owner, item, taken)


def rewritten(owner: str, name: str, entry: Old, value: Any, text: str) -> tuple[str | None, str | None, str]:
    """(today's name, its value as source, why) of an old `name=text`: without a name it is dropped; without a value it is left.

    `value` is UNKNOWN where only running the script could tell.
    """
    if entry.harmless is not None:
        fine = value is not UNKNOWN and entry.takes(value)
        return (None, "", f"it did nothing ({entry.why})") if fine else (None, None, entry.why)
    if entry.new is None:
        return None, "", "no longer needed: " + entry.why
    if value is not UNKNOWN and entry.convert:
        try:
            new = entry.convert(value)
        except ValueError as error:
            return None, None, str(error)
        return entry.new, text if new == value else literal(new), f"its name in {owner}"
    if entry.source or not entry.convert:
        return entry.new, (entry.source or "{}").format(text), f"its name in {owner}"
    return None, None, f"write {entry.new}=…"


def _field(
    source: Source, names: Names, call: ast.Call, owner: str, item: Any, taken: set[str | None]
) -> None:
    entry, text = TABLES[owner][item.arg], source.of(item.value)
    value = names.value(item.value) if isinstance(item.value, ast.Name) else _literal(item.value)
    if entry.convert and isinstance(item.value, ast.Name) and entry.source:
        value = UNKNOWN  # the variable stays
    new, shown, why = rewritten(owner, item.arg, entry, value, text)
    if shown is None:
        source.note(item, f"{item.arg}={text}", "", why, hand=True)
    elif new is None:
        source.remove_item(item, [*call.args, *call.keywords])
        names.dropped.add(item)
        if item.arg == "logging_dir":
            why = f"TensorBoard reads the variable TENSORBOARD_LOGGING_DIR; set it to {text}"
        source.note(item, f"{item.arg}={text}", "", why)
    elif new in taken:
        source.note(
            item,
            f"{item.arg}={text}",
            "",
            f"it is the old name of {new}, which is given too; leave one",
            hand=True,
        )
    else:
        source.replace(item, f"{new}={shown}")
        source.note(item, f"{item.arg}={text}", f"{new}={shown}", why)


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError):
        return UNKNOWN


def _spread(source: Source, names: Names, owner: str, item: ast.keyword) -> None:
    """`**settings`: the keys of a dict that was written down in the script."""
    made = names.made(item.value)
    keys = made.keys if isinstance(made, ast.Dict) else []
    for key, value in zip(keys, made.values if keys else [], strict=True):
        name = str(key.value) if isinstance(key, ast.Constant) else ""
        entry = TABLES[owner].get(name)
        if key is None or entry is None:
            continue
        new, shown, why = rewritten(owner, name, entry, _literal(value), source.of(value))
        if shown is None or new is None:
            source.note(key, f"{name!r}", "", f"in the settings of {owner}: {why}", hand=True)
            continue
        source.replace((source.span(key)[0], source.span(value)[1]), f"{json.dumps(new)}: {shown}")
        source.note(key, f'"{name}"', f'"{new}"', why)


def config_of(source: Source, names: Names, trainer: ast.Call, place: int) -> tuple[Any, Any]:
    """(the argument that is the config of a trainer, the call that made it); None where it is not there, or not made here."""
    given = keyword(trainer, "args", "config")
    argument = given.value if given else trainer.args[place] if len(trainer.args) > place else None
    made = names.made(argument)
    known = isinstance(made, ast.Call) and names.known(made.func) in TABLES
    return argument, made if known else None
