"""Which driver the arguments of a trainer ask for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ..rollout import Driver, OneTurn, stop_ids
from .calls import Parser
from .environments import Factory
from .rollout_func import RolloutFunc
from .tool_loop import ToolLoop


def driver_for(
    tokenizer: Any,
    *,
    tools: Sequence[Callable[..., Any]] | None = None,
    environment_factory: Factory | Mapping[str, Factory] | None = None,
    rollout_func: Callable[..., Any] | None = None,
    max_new_tokens: int,
    max_iterations: int | None = None,
    timeout: float | None = None,
    parse: Parser | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    room: int | None = None,
    stops: Collection[int] | None = None,
    trainer: Any = None,
) -> Driver:
    """The driver of a trainer with these arguments; one turn where none is given.

    A `ToolLoop` renders prompts itself, from the messages in `prompt`. `stops`: the tokens that end a completion (default: the
    tokenizer's). Raises ValueError for arguments that do not go together.
    """
    loops = bool(tools) or environment_factory is not None
    if rollout_func is not None:
        if loops:
            other = "tools" if tools else "environment_factory"
            raise ValueError(
                f"found rollout_func and {other}: rollout_func makes whole completions, so nothing would call them; leave one "
                "out, or call them in rollout_func"
            )
        ends = stop_ids(tokenizer) if stops is None else stops
        driver: Driver = RolloutFunc(rollout_func, stop_ids=ends, trainer=trainer)
    elif loops:
        return ToolLoop(
            tokenizer,
            max_new_tokens=max_new_tokens,
            tools=tools,
            environment_factory=environment_factory,
            max_iterations=max_iterations,
            timeout=timeout,
            parse=parse,
            chat_template_kwargs=chat_template_kwargs,
            room=room,
        )
    else:
        driver = OneTurn()
    if max_iterations is not None:
        raise ValueError(
            f"max_tool_calling_iterations={max_iterations} needs tools=[…] or environment_factory=…; leave it out"
        )
    return driver
