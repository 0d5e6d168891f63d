"""Tools: Python functions, plain or async, that a model calls by name. What goes wrong is told to the model, not to the user."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

JSON_TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


@dataclass(frozen=True)
class Call:
    """One call as a model wrote it. arguments: a mapping, or, where that could not be read, the text itself."""

    name: str
    arguments: dict[str, Any] | str


@dataclass(frozen=True)
class Answer:
    """What a tool said, or why it could not."""

    text: str
    failed: bool = False


class Tool:
    """A function with its JSON schema, read from type hints and the docstring (one `Args:` entry per parameter).

    method: it is found by its name on the environment of the completion at hand. Raises ValueError when the function has no
    name, or the schema cannot be read.
    """

    def __init__(self, function: Callable[..., Any], *, method: bool = False) -> None:
        from transformers.utils import get_json_schema

        if not callable(function) or not hasattr(function, "__name__"):
            raise ValueError(
                f"a tool must be a function, found {function!r}; write def name(argument: type) -> …"
            )
        self.function, self.method, self.name = function, method, function.__name__
        self.is_async = inspect.iscoroutinefunction(function)
        self.signature = inspect.signature(function)
        try:
            self.schema: dict[str, Any] = get_json_schema(function)
        except Exception as error:  # transformers has several, not all of them public
            raise ValueError(
                f"tool {self.name!r} cannot be described to a model: {error}\nIt needs a docstring that says what it does, a "
                "type hint for every argument, and a section `Args:` with a line `argument: what it is` for each"
            ) from error

    def of(self, environment: Any) -> Callable[..., Any]:
        """What to call for a completion with this environment."""
        return getattr(environment, self.name) if self.method else self.function

    def complaint(self, arguments: Mapping[str, Any]) -> str | None:
        """Why the function cannot be called with `arguments`, for the model to read; None if it can."""
        try:
            self.signature.bind(**arguments)
        except TypeError as error:
            return f"{error}; expected {self.name}{self.signature}"
        known = self.schema["function"]["parameters"].get("properties", {})
        wrong = (wrong_value(name, value, known.get(name, {})) for name, value in arguments.items())
        return next(filter(None, wrong), None)


def wrong_value(name: str, value: Any, schema: Mapping[str, Any]) -> str | None:
    """Why `value` does not fit the schema of argument `name`: its type or its choices; None if it does."""
    wanted = schema.get("type", ())
    wanted = [wanted] if isinstance(wanted, str) else list(wanted)
    if value is None and schema.get("nullable"):
        return None
    fits = (
        isinstance(value, JSON_TYPES.get(t, (object,))) and (t == "boolean" or not isinstance(value, bool))
        for t in wanted
    )
    if wanted and not any(fits):
        return (
            f"argument {name!r} must be of type {' or '.join(wanted)}, found {json.dumps(value, default=str)}"
        )
    if "enum" in schema and value not in schema["enum"]:
        return f"argument {name!r} must be one of {schema['enum']}, found {json.dumps(value, default=str)}"
    return None


def as_tools(functions: Iterable[Callable[..., Any]], *, method: bool = False) -> list[Tool]:
    """The functions as tools. Raises ValueError for two of one name, TypeError for something else than a list of functions."""
    if callable(functions) or isinstance(functions, str | Mapping):
        raise TypeError(
            f"tools must be a list of functions, found {type(functions).__name__}; write tools=[…]"
        )
    found = [Tool(function, method=method) for function in functions]
    names = [tool.name for tool in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two tools are called {twice!r}; a model calls tools by name, so rename one")
    return found


@dataclass(frozen=True)
class Request:
    """A call, and what it may reach: the tools of its completion by name, and its environment."""

    call: Call
    tools: Mapping[str, Tool]
    environment: Any = None

    @property
    def tool(self) -> Tool | None:
        """The tool that is called, if there is one of that name."""
        return self.tools.get(self.call.name)

    @property
    def function(self) -> Callable[..., Any]:
        """What to call."""
        return self.tools[self.call.name].of(self.environment)

    def refusal(self) -> Answer | None:
        """The answer to a call that cannot be made; None if it can."""
        call, tool = self.call, self.tool
        if isinstance(call.arguments, str):
            form = '{"name": …, "arguments": {…}}'
            return failure(
                f"the call could not be read; expected a JSON object {form}, found {call.arguments[:80]!r}"
            )
        if tool is None:
            return failure(f"there is no tool {call.name!r}; the tools are {sorted(self.tools)}")
        why = tool.complaint(call.arguments)
        return None if why is None else failure(why)


def failure(why: str) -> Answer:
    """An answer that says what went wrong."""
    return Answer(f"Error: {why}", failed=True)


def said(result: Any) -> Answer:
    """A tool's result as text: a string as it is, everything else as JSON."""
    return Answer(result if isinstance(result, str) else json.dumps(result, default=str, ensure_ascii=False))


def schemas(tools: Sequence[Tool]) -> list[dict[str, Any]] | None:
    """What a chat template gets as `tools=`."""
    return [tool.schema for tool in tools] or None
