"""Trainers in a script: old arguments under today's names, and those that became fields put into the config."""

from __future__ import annotations

import ast
from typing import Any

from ..trainers.old_keywords import ARGUMENTS, DATASET_KWARGS, MOVED
from ..trainers.old_names import Old, renamed
from .fields import TABLES, config_of, rewritten
from .loop import calls_of
from .names import PACKAGES, Names, keyword
from .source import UNKNOWN, Source

PLACES = {"PPOTrainer": 0, "RLOOTrainer": 2, "GRPOTrainer": 2, "DPOTrainer": 2, "KTOTrainer": 2}
"""At which position a trainer takes its config; the others: 1."""
STILL = {
    "config": renamed("args"),
    "tokenizer": renamed("processing_class"),
    "dataset": renamed("train_dataset"),
}
"""What PPOTrainer takes to this day under its old name."""
OLD_RATE = "5e-5"


def move_arguments(source: Source, names: Names) -> None:
    """Rewrite the old arguments of every trainer that the script makes."""
    for call in names.calls(*ARGUMENTS):
        trainer = names.known(call.func) or ""
        table = {**ARGUMENTS[trainer], **(STILL if trainer == "PPOTrainer" else {})}
        for item in call.keywords:
            if item.arg in table and not names.gone(item):
                _argument(source, names, call, trainer, item, table[item.arg])
        moved = [k for k in call.keywords if k.arg in MOVED[trainer] and not names.gone(k)]
        if moved:
            _into_config(source, names, call, trainer, moved)


def move_methods(source: Source, names: Names) -> None:
    """Methods that trainers once had: they go, or are called what they are called now."""
    for name, assigned in names.assigned.items():
        made = assigned[-1][1]
        if isinstance(made, ast.Call) and names.known(made.func) in ARGUMENTS:
            _tokenizer(source, name)
        if not (isinstance(made, ast.Call) and names.known(made.func) in ("PPOTrainer", "RLOOTrainer")):
            continue
        for call in calls_of(source.tree, name, "generate_completions"):
            held_out = keyword(made, "eval_dataset") is not None
            new = f"{name}.evaluate()" if held_out else ""
            if held_out:
                source.replace(call, new)
            else:
                source.cut(source.statement(call))
            source.note(
                call,
                f"{name}.generate_completions()",
                new,
                "num_sample_generations=… shows tables while training",
            )


def _tokenizer(source: Source, trainer: str) -> None:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and node.attr == "tokenizer" and source.of(node.value) == trainer:
            source.replace(node, f"{trainer}.processing_class")
            source.note(node, f"{trainer}.tokenizer", f"{trainer}.processing_class", "its name now")


def _argument(source: Source, names: Names, call: ast.Call, trainer: str, item: Any, entry: Old) -> None:
    text = source.of(item.value)
    value = item.value.value if isinstance(item.value, ast.Constant) else UNKNOWN
    new, shown, why = rewritten(trainer, item.arg, entry, value, text)
    if shown is None:
        source.note(item, f"{trainer}({item.arg}={text})", "", why, hand=True)
    elif new is None:
        drop(source, names, call, item)
        source.note(item, f"{trainer}({item.arg}={text})", "", why)
    elif new == item.arg or keyword(call, new):
        source.note(
            item, f"{item.arg}", "", f"it is the old name of {new}, which is given too; leave one", hand=True
        )
    else:
        start = source.span(item)[0]
        source.replace((start, start + len(item.arg)), new)
        source.note(item, f"{trainer}({item.arg}=)", f"{new}=", why)


def drop(source: Source, names: Names, call: ast.Call, item: Any) -> None:
    """Take an argument of a call away."""
    if item not in names.dropped:
        source.remove_item(item, [*call.args, *call.keywords])
        names.dropped.add(item)


def _into_config(source: Source, names: Names, call: ast.Call, trainer: str, moved: list[Any]) -> None:
    """Arguments that are fields of the config now, into the config where it is made; else they stay, and warn when run."""
    owner = trainer.replace("Trainer", "Config")
    argument, made = config_of(source, names, call, PLACES.get(trainer, 1))
    fields = [(item, *_as_field(source, names, owner, item)) for item in moved]
    late = made is not None and not all(names.known_at(item.value, made.lineno) for item in moved)
    if late or (made is None and argument is not None) or any(text is None for _, _, text in fields):
        why = f"a field of {owner} now; as an argument it still works, with a warning"
        for item in moved:
            source.note(item, f"{trainer}({item.arg}=)", f"{owner}({item.arg}=)", why + " (left as it is)")
        return
    if made is None and any(name for _, name, _ in fields):
        new = ", ".join(f"{name}={text}" for _, name, text in fields if name)
        local = local_name(names, owner)
        source.append(call, f"args={local}({new})")
    elif made is not None:
        _fill(source, names, made, owner, fields)
    for item, name, text in fields:
        names.keep(item.value)
        drop(source, names, call, item)
        new = f"{owner}({name}={text})" if name else ""
        source.note(
            item,
            f"{trainer}({item.arg}={source.of(item.value)})",
            new,
            "a field of the config now" if name else "it said nothing that is not so by itself",
        )


def _as_field(source: Source, names: Names, owner: str, item: Any) -> tuple[str | None, str | None]:
    """(today's field, value as source) of an argument; no field: it can go; no value: it has to stay."""
    if isinstance(item.value, ast.Constant) and item.value.value is None:
        return None, ""
    entry, text = TABLES[owner].get(item.arg), source.of(item.value)
    if item.arg == "dataset_kwargs" and set(names.keys(item.value)) <= set(DATASET_KWARGS):
        return None, ""
    if entry is None:
        return item.arg, text
    value = item.value.value if isinstance(item.value, ast.Constant) else UNKNOWN
    new, shown, _ = rewritten(owner, item.arg, entry, value, text)
    return new, shown


def _fill(source: Source, names: Names, made: ast.Call, owner: str, fields: list[Any]) -> None:
    plain = names.known(made.func) == "TrainingArguments"
    given = {k.arg for k in made.keywords}
    for item, name, text in fields:
        if name in given:
            why = f"{owner} has {name} too; the trainer's argument won in TRL: check that the config says {text}"
            source.note(item, f"{item.arg}={text}", "", why, hand=True)
        elif name:
            source.append(made, f"{name}={text}")
    if not plain:
        return
    source.replace(made.func, local_name(names, owner))
    names.dropped.add(made.func)
    source.note(
        made,
        "TrainingArguments(…)",
        f"{owner}(…)",
        "its own config holds what the trainer was given beside it",
    )
    if "learning_rate" not in given:
        source.append(made, f"learning_rate={OLD_RATE}")
        source.note(
            made,
            "learning_rate left out",
            f"learning_rate={OLD_RATE}",
            f"the default of TrainingArguments; {owner} has its own",
        )


def local_name(names: Names, owner: str) -> str:
    """What today's `owner` is called in the script; it is imported where it is not yet."""
    for local, name in names.local.items():
        if name == owner:
            return local
    package = next((local for local, module in names.modules.items() if module in PACKAGES), None)
    if package and not any(name in TABLES for name in names.local.values()):
        return f"{'trellis' if package == 'trl' else package}.{owner}"
    names.local[owner] = owner
    names.want("trellis", owner)
    return owner
