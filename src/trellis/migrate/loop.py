"""The hand-written PPO loop of TRL 0.4 to 0.11, taken apart: what stands between generate() and step() is a reward function."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any

from .names import Names, keyword
from .source import Source
from .variables import read, stored

SAVING = ("save_pretrained", "push_to_hub")
QUIET = "print log_stats empty_cache collect set_description set_postfix update info log write"
SAYS = (*SAVING, *QUIET.split())
"""Calls of which nothing depends: they may go."""
LEAVING = (ast.Break, ast.Continue, ast.Return, ast.Yield, ast.Await)
GUIDE = "write it as a reward function and call train(); see docs/migrate.md, your loop as a reward function"


class Unusual(Exception):
    """A loop that has something which a reward function cannot do; the message says what."""


@dataclass
class Loop:
    """A loop `for batch in trainer.dataloader`, taken apart. `whole` is the outermost loop, `passes` how often the data is gone
    through, `rollouts` where a break counts them, `generate` the call that samples, `reward` the statements that score, `lost`
    the variables that only sampling needed, `bare` whether the responses were without their prompts."""

    trainer: str
    whole: ast.For
    batch: str
    counter: str | None
    generate: ast.Call
    step: ast.Call
    passes: ast.expr | None = None
    rollouts: ast.expr | None = None
    reward: list[ast.stmt] = field(default_factory=list)
    queries: set[str] = field(default_factory=set)
    responses: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    bare: bool = False
    column: str = "response"


def calls_of(node: ast.AST, trainer: str, method: str) -> list[ast.Call]:
    """Calls `trainer.method(…)` in `node`."""
    return [
        n
        for n in ast.walk(node)
        if isinstance(n, ast.Call)
        and isinstance(n.func, ast.Attribute)
        and n.func.attr == method
        and isinstance(n.func.value, ast.Name)
        and n.func.value.id == trainer
    ]


def read_loop(source: Source, names: Names, trainer: str) -> Loop | None:
    """The loop that drives `trainer`, None where there is none. Raises Unusual."""
    steps = calls_of(source.tree, trainer, "step")
    if not steps:
        return None
    if len(steps) > 1:
        raise Unusual("step() is called in more than one place")
    inner = _loop_around(source, steps[0], trainer)
    batch, counter = _targets(inner)
    whole, passes = _outermost(source, inner)
    generated = calls_of(inner, trainer, "generate")
    if len(generated) != 1:
        raise Unusual(f"generate() is called in {len(generated)} places of the loop")
    loop = Loop(trainer, whole, batch, counter, generated[0], steps[0], passes)
    for statement in inner.body:
        _sort(source, names, loop, statement)
    _check(loop)
    return loop


def _loop_around(source: Source, step: ast.Call, trainer: str) -> ast.For:
    node: Any = step
    while node in source.parents:
        node = source.parents[node]
        if isinstance(node, ast.For) and any(
            isinstance(n, ast.Attribute)
            and n.attr == "dataloader"
            and isinstance(n.value, ast.Name)
            and n.value.id == trainer
            for n in ast.walk(node.iter)
        ):
            if node.orelse:
                raise Unusual("the loop has an else")
            return node
    raise Unusual(f"step() is not called in a loop over {trainer}.dataloader")


def _targets(loop: ast.For) -> tuple[str, str | None]:
    target = loop.target
    if isinstance(target, ast.Name):
        return target.id, None
    if isinstance(target, ast.Tuple) and len(target.elts) == 2:
        counter, batch = target.elts
        if isinstance(batch, ast.Name) and isinstance(counter, ast.Name):
            return batch.id, counter.id
    raise Unusual("the loop's variables are no batch, nor a number and a batch")


def _outermost(source: Source, inner: ast.For) -> tuple[ast.For, ast.expr | None]:
    """A loop over epochs around the loop over batches, with how many epochs."""
    outer = source.parents[inner]
    if not isinstance(outer, ast.For):
        return inner, None
    ranges = [
        n
        for n in ast.walk(outer.iter)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "range"
    ]
    if len(ranges) != 1 or len(ranges[0].args) != 1:
        raise Unusual("the loop around it is no loop over range(epochs)")
    others = [s for s in outer.body if s is not inner and not _only_says(s)]
    if others or outer.orelse:
        raise Unusual(
            f"line {others[0].lineno if others else outer.lineno} does more per epoch than go through the data"
        )
    return outer, ranges[0].args[0]


def _sort(source: Source, names: Names, loop: Loop, statement: ast.stmt) -> None:
    """Put a statement of the loop where it belongs."""
    if calls_of(statement, loop.trainer, "step"):
        return
    if any(n is loop.generate for n in ast.walk(statement)):
        _note_responses(loop, statement)
    elif _is_break(statement):
        loop.rollouts = _limit(loop, statement)
    elif _is_queries(loop, statement):
        loop.queries |= stored(statement)
    elif _is_preparation(loop, statement):
        loop.lost |= stored(statement)
    elif _decodes(loop, statement):
        _note_texts(loop, statement)
    elif not _only_says(statement):
        loop.reward.append(_scoring(loop, statement))


def _note_responses(loop: Loop, statement: ast.stmt) -> None:
    """The statement that samples: which of its variables holds the responses."""
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    lists = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)} or _appended(statement)
    loop.responses |= lists
    loop.lost |= stored(statement) - lists
    given = keyword(loop.generate, "return_prompt")
    apart = given is not None and isinstance(given.value, ast.Constant) and given.value.value is False
    loop.bare = apart or any(isinstance(n, ast.Slice) for n in ast.walk(statement))


def _scoring(loop: Loop, statement: ast.stmt) -> ast.stmt:
    """`statement`, which computes rewards. Raises Unusual for what does more."""
    if any(isinstance(n, LEAVING) for n in ast.walk(statement)):
        raise Unusual(f"line {statement.lineno} leaves the loop or skips a part of it")
    if statement.lineno > loop.step.lineno:
        raise Unusual(f"line {statement.lineno} works with what step() did")
    return statement


def _appended(node: ast.AST) -> set[str]:
    return {
        n.func.value.id
        for n in ast.walk(node)
        if isinstance(n, ast.Call)
        and isinstance(n.func, ast.Attribute)
        and n.func.attr in ("append", "extend")
        and isinstance(n.func.value, ast.Name)
    }


def _is_break(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.If)
        and len(statement.body) == 1
        and isinstance(statement.body[0], ast.Break)
    )


def _limit(loop: Loop, statement: Any) -> ast.expr:
    test = statement.test
    counts = (
        isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == loop.counter
    )
    if not counts or not isinstance(test.ops[0], ast.GtE | ast.Eq) or statement.orelse:
        raise Unusual(f"line {statement.lineno} ends the loop on a condition of its own")
    return test.comparators[0]


def _is_queries(loop: Loop, statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Assign) else None
    return (
        isinstance(value, ast.Subscript)
        and isinstance(value.value, ast.Name)
        and value.value.id == loop.batch
        and isinstance(value.slice, ast.Constant)
        and value.slice.value == "input_ids"
    )


def _decodes(loop: Loop, statement: ast.stmt) -> bool:
    """Whether the statement makes texts of the responses, and nothing else."""
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return False
    value = statement.value
    decoding = [
        n for n in ast.walk(value) if isinstance(n, ast.Attribute) and n.attr in ("decode", "batch_decode")
    ]
    plain = isinstance(value, ast.ListComp | ast.Call)
    return bool(decoding) and plain and bool(read(value) & loop.responses) and not read(value) & loop.queries


def _note_texts(loop: Loop, statement: Any) -> None:
    target = statement.targets[0]
    if isinstance(target, ast.Name):
        loop.texts.add(target.id)
    elif isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
        loop.column = str(target.slice.value)


def _only_says(statement: ast.stmt) -> bool:
    """Whether the statement only prints, logs or saves."""
    if isinstance(statement, ast.If):
        return all(_only_says(s) for s in [*statement.body, *statement.orelse])
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call):
        return isinstance(statement, ast.Pass)
    function = statement.value.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in SAYS


def _is_preparation(loop: Loop, statement: ast.stmt) -> bool:
    """`response_tensors = []` before sampling, a length drawn for it, and the like."""
    step = {n.id for argument in loop.step.args[1:2] for n in ast.walk(argument) if isinstance(n, ast.Name)}
    used = read(loop.generate) | step
    before = statement.lineno < loop.generate.lineno
    return (
        before
        and isinstance(statement, ast.Assign)
        and bool(stored(statement) & used)
        or (
            before
            and isinstance(statement, ast.Assign)
            and isinstance(statement.value, ast.List)
            and not statement.value.elts
        )
    )


def scores(loop: Loop) -> ast.expr:
    """The third argument of step()."""
    given = keyword(loop.step, "scores")
    if given is None and len(loop.step.args) < 3:
        raise Unusual("step() is not given queries, responses and scores")
    return given.value if given else loop.step.args[2]


def _check(loop: Loop) -> None:
    """Raises Unusual for what the reward statements need and a reward function has not."""
    if not loop.reward and not isinstance(scores(loop), ast.Name):
        return
    used = read(*loop.reward, scores(loop))
    if used & loop.queries:
        raise Unusual(
            f"the reward is computed from {', '.join(sorted(used & loop.queries))}, the prompts' token ids"
        )
    if used & loop.responses and not loop.bare:
        raise Unusual("the reward is computed from token ids that hold the prompt too")
    written = stored(*loop.reward) if loop.reward else set()
    if unknown := used & loop.lost - written - loop.responses - loop.texts:
        raise Unusual(f"the reward uses {', '.join(sorted(unknown))}, which the loop has set to sample")
    if loop.counter in used:
        raise Unusual(f"the reward depends on the number of the step, {loop.counter}")
    keys = {
        n.slice.value
        for statement in loop.reward
        for n in ast.walk(statement)
        if isinstance(n, ast.Subscript)
        and isinstance(n.value, ast.Name)
        and n.value.id == loop.batch
        and isinstance(n.slice, ast.Constant)
    }
    if "input_ids" in keys:
        raise Unusual("the reward is computed from the prompts' token ids")
