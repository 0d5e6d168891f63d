"""What a loop did, written anew: its reward function, what it saved, and how it sampled."""

from __future__ import annotations

import ast
from typing import Any

from .loop import SAVING, Loop, scores
from .names import Names
from .source import UNKNOWN, Source
from .variables import read, stored


def reward_function(source: Source, loop: Loop, name: str, indent: str) -> str:
    """The source of a reward function that does what the loop did between sampling and step()."""
    body = [
        f'batch = {{"query": prompts, **columns, "{loop.column}": completions}}'.replace(
            "batch", loop.batch, 1
        )
    ]
    used = read(*loop.reward, scores(loop))
    body += [f"{text} = completions" for text in sorted(loop.texts & used)]
    body += [
        f"{ids} = [torch.tensor(ids) for ids in completion_ids]" for ids in sorted(loop.responses & used)
    ]
    if loop.batch not in used:
        body = body[1:]
    for statement in loop.reward:
        own = source.indent(statement)
        text = source.rendered(source.above(statement), source.lines(statement)[1])
        body += [line.removeprefix(own) for line in text.rstrip("\n").split("\n")]
    body.append(f"return {source.of(scores(loop))}")
    more = ", completion_ids" if loop.responses & used else ""
    lines = [
        f"def {name}(prompts, completions{more}, **columns):",
        *(f"    {line}" if line else "" for line in body),
    ]
    return "\n".join(f"{indent}{line}" if line else "" for line in lines) + "\n"


def saves(source: Source, loop: Loop) -> tuple[list[str], list[ast.Call]]:
    """(what the loop saved under one name and is saved after training then, as statements; other calls that saved in between)."""
    variables = stored(loop.whole)
    kept, between = [], []
    for node in ast.walk(loop.whole):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SAVING:
            if read(*node.args) & variables:
                between.append(node)
            elif isinstance(node.func.value, ast.Name) and node.func.value.id == loop.trainer:
                kept.append(f"{loop.trainer}.save_model({', '.join(source.of(a) for a in node.args)})")
            else:
                kept.append(source.of(node))
    return list(dict.fromkeys(kept)), between


def sampled_with(source: Source, names: Names, loop: Loop) -> dict[str, tuple[Any, str]]:
    """The settings of generate() in the loop: {name: (its value or UNKNOWN, its source)}."""
    found: dict[str, tuple[Any, str]] = {}
    for item in loop.generate.keywords:
        if item.arg is not None:
            found[item.arg] = (names.value(item.value), source.of(item.value))
            continue
        made = names.made(item.value)
        if isinstance(made, ast.Dict):
            pairs = zip(made.keys, made.values, strict=True)
            found |= {
                str(k.value): (names.value(v), source.of(v)) for k, v in pairs if isinstance(k, ast.Constant)
            }
        elif isinstance(made, ast.Call):
            found |= {k.arg: (names.value(k.value), source.of(k.value)) for k in made.keywords if k.arg}
        else:
            found["**"] = (UNKNOWN, source.of(item.value))
    return found
