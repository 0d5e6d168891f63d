"""Environments: one object per completion, which opens it, answers its calls or its texts, and may say what it was worth."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .calls import Message
from .tools import Tool, as_tools

OWN_METHODS = ("reset", "step", "get_reward", "close")
"""What an environment's public methods are called that are no tools."""
COLUMN = "environment"
Factory = Callable[[], Any]


@dataclass(frozen=True)
class Kind:
    """What is known of the environments that one factory makes. declared: the columns that reset asks for (None: all)."""

    name: str
    factory: Factory
    made: type
    tools: list[Tool]
    steps: bool
    declared: frozenset[str] | None
    required: frozenset[str]

    @classmethod
    def of(cls, name: str | None, factory: Factory) -> Kind:
        """Found out from one object, made for that. Raises TypeError or ValueError for what is no environment."""
        if not callable(factory):
            raise TypeError(
                f"environment_factory must be callable or {{name: callable}}, found {type(factory).__name__}; pass the class, "
                "not an object of it"
            )
        sample = factory()
        made = type(sample)
        owner = made.__name__ if name is None else name
        if not callable(getattr(sample, "reset", None)):
            raise ValueError(
                f"environment {owner!r} ({made.__name__}) has no method reset; write def reset(self, **columns) -> str | None, "
                "which begins an episode and may return what the model sees first"
            )
        functions = [n for n, _ in inspect.getmembers(made, inspect.isfunction) if not n.startswith("_")]
        tools = as_tools([getattr(sample, n) for n in functions if n not in OWN_METHODS], method=True)
        parameters = inspect.signature(sample.reset).parameters.values()
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        return cls(
            name=owner,
            factory=factory,
            made=made,
            tools=tools,
            steps=callable(getattr(sample, "step", None)),
            declared=None if takes_all else frozenset(p.name for p in named),
            required=frozenset(p.name for p in named if p.default is p.empty),
        )

    def columns(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What reset is called with. Raises ValueError when it asks for what the row has not."""
        own = {k: v for k, v in row.items() if k != "prompt_ids"}
        if missing := sorted(self.required - own.keys()):
            raise ValueError(
                f"{self.name}.reset needs the argument {missing[0]!r}, found the columns {sorted(own)}; rename it, or give it "
                "a default"
            )
        return own if self.declared is None else {k: v for k, v in own.items() if k in self.declared}


class Environments:
    """The kinds of environments of a run, by the name in a row's column `environment` (one callable: all rows alike)."""

    def __init__(self, factory: Factory | Mapping[str, Factory]) -> None:
        self.routed = isinstance(factory, Mapping)
        if isinstance(factory, Mapping):
            if not factory:
                raise ValueError("environment_factory={} has no environments; write {'name': callable}")
            self.kinds = {name: Kind.of(name, make) for name, make in factory.items()}
        else:
            self.kinds = {"": Kind.of(None, factory)}

    def of(self, row: Mapping[str, Any]) -> Kind:
        """The kind that a row asks for. Raises ValueError for a row that asks for none of them."""
        if not self.routed:
            return self.kinds[""]
        if row.get(COLUMN) not in self.kinds:
            found = f"found {row[COLUMN]!r}" if COLUMN in row else f"found the columns {sorted(row)}"
            raise ValueError(
                f"the column {COLUMN!r} must say which of the environments {sorted(self.kinds)} a row belongs to; {found}"
            )
        return self.kinds[row[COLUMN]]

    def open(self, row: Mapping[str, Any], index: int) -> tuple[Any, Any]:
        """A new environment for completion `index` of `row`, and what its reset returned (to be awaited, if it is async)."""
        kind = self.of(row)
        environment = kind.factory()
        passed = {k: v for k, v in row.items() if not (self.routed and k == COLUMN)}
        return environment, asked(environment, "reset", index, **kind.columns(passed))

    @property
    def rewards(self) -> list[Callable[..., Any]]:
        """One reward function per class with a method get_reward, named for it; None for completions in other environments."""
        classes = dict.fromkeys(kind.made for kind in self.kinds.values())
        return [own_reward(made) for made in classes if callable(getattr(made, "get_reward", None))]


def asked(environment: Any, method: str, index: int, /, *values: Any, **named: Any) -> Any:
    """What an environment's own method returns (to be awaited, if it is async). Raises RuntimeError, with the environment's
    name, when it raises."""
    try:
        result = getattr(environment, method)(*values, **named)
    except Exception as error:
        raise _blamed(environment, method, index, error) from error

    async def later() -> Any:
        try:
            return await result
        except Exception as error:
            raise _blamed(environment, method, index, error) from error

    return later() if inspect.isawaitable(result) else result


def _blamed(environment: Any, method: str, index: int, error: Exception) -> RuntimeError:
    name = type(environment).__name__
    return RuntimeError(f"{name}.{method} raised {type(error).__name__}: {error} (completion {index})")


def own_reward(made: Any) -> Callable[..., Any]:
    """A reward function that asks the environments of class `made` what their completions were worth."""

    def score(environments: Sequence[Any]) -> list[Any]:
        return [e.get_reward() if type(e) is made else None for e in environments]

    async def score_later(environments: Sequence[Any]) -> list[Any]:
        return [await e.get_reward() if type(e) is made else None for e in environments]

    found = score_later if inspect.iscoroutinefunction(made.get_reward) else score
    found.__name__ = made.__name__
    return found


def opened(prompt: Sequence[Message], observation: Any, owner: str) -> list[Message]:
    """The prompt with what reset returned at the end of its last user message. Raises TypeError unless that is text or None."""
    messages = [dict(message) for message in prompt]
    if observation is None:
        return messages
    if not isinstance(observation, str):
        raise TypeError(
            f"{owner}.reset must return a text or None, found {observation!r} ({type(observation).__name__})"
        )
    if messages[-1]["role"] != "user":
        return [*messages, {"role": "user", "content": observation}]
    before = messages[-1]["content"]
    added: Any = observation if isinstance(before, str) else [{"type": "text", "text": observation}]
    return [*messages[:-1], {**messages[-1], "content": before + added}]


def stepped(result: Any, owner: str) -> tuple[str | None, bool]:
    """What step returned, as (observation, done). Raises TypeError for anything else."""
    if isinstance(result, tuple | list) and len(result) == 2:
        observation, done = result
        if observation is None or isinstance(observation, str):
            return observation, bool(done) or observation is None
    raise TypeError(
        f"{owner}.step must return (what the model sees next: a text or None, whether it is over), found {result!r}"
    )
