"""From what a model wrote to a message: its text, and the tools it calls."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .tools import Call

Message = dict[str, Any]
Parser = Callable[[str], Message]
"""The text of one turn, special tokens and all but the one that ended it → an assistant's message, with `tool_calls` if any."""

TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)


def tagged_calls(text: str) -> Message:
    """The message of a model that writes `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, as Hermes and Qwen do.

    What stands between the tags and is no such object becomes a call whose arguments are that text.
    """
    found = TAGGED.findall(text)
    if not found:
        return {"role": "assistant", "content": text}
    calls = [
        {"type": "function", "id": f"call{i:05d}", "function": _function(body)}
        for i, body in enumerate(found)
    ]
    return {"role": "assistant", "content": TAGGED.sub("", text).strip(), "tool_calls": calls}


def _function(body: str) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return {"name": value["name"], "arguments": value.get("arguments", {})}
    return {"name": "", "arguments": body.strip()}


def calls_of(message: Message) -> list[Call]:
    """The calls of a message that `Reader` has read."""
    functions = [entry["function"] for entry in message.get("tool_calls") or ()]
    return [Call(function["name"], function["arguments"]) for function in functions]


def _entry(given: Any) -> dict[str, Any]:
    """One of a message's `tool_calls` in one form: a name, and arguments as a mapping or, where there is none, as text."""
    function = given.get("function", given) if isinstance(given, Mapping) else given
    own = {"id": given["id"]} if isinstance(given, Mapping) and given.get("id") else {}
    if not isinstance(function, Mapping):
        return {
            "type": "function",
            **own,
            "function": {"name": "", "arguments": json.dumps(function, default=str)},
        }
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            read = json.loads(arguments)
        except ValueError:
            read = None
        arguments = read if isinstance(read, dict) else arguments
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, dict | str):
        arguments = json.dumps(arguments, default=str)
    name = str(function.get("name") or "")
    return {"type": "function", **own, "function": {"name": name, "arguments": arguments}}


class Reader:
    """Reads turns: with `parse` if given, else with the tokenizer's own `response_template`, else as `tagged_calls`."""

    def __init__(self, tokenizer: Any, parse: Parser | None = None) -> None:
        self.tokenizer, self.parse = tokenizer, parse
        self.own = parse is None and getattr(tokenizer, "response_template", None) is not None

    def __call__(self, before: Sequence[int], ids: Sequence[int], stopped: bool, tools: Any) -> Message:
        """The message of the turn `ids` after the tokens `before`; `stopped`: its last token only ends it. A turn that was cut
        off, or that could not call a tool, is its text."""
        body = list(ids[: len(ids) - stopped])
        plain = {"role": "assistant", "content": self.tokenizer.decode(body, skip_special_tokens=True)}
        if not (stopped and tools):
            return plain
        message = self._parsed(list(before), list(ids), body, tools)
        if not isinstance(message, Mapping):
            raise TypeError(
                f"parse must return a message such as {{'role': 'assistant', 'content': …}}, found {type(message).__name__}"
            )
        if not message.get("tool_calls"):
            return {**plain, **message} if self.parse or self.own else plain
        calls = [_entry(given) for given in message["tool_calls"]]
        return {"role": "assistant", "content": "", **message, "tool_calls": calls}

    def _parsed(self, before: list[int], ids: list[int], body: list[int], tools: Any) -> Any:
        text = self.tokenizer.decode(body)
        if not self.own:
            return (self.parse or tagged_calls)(text)
        try:
            return self.tokenizer.parse_response(ids, prefix=before, tools=tools)
        except (ValueError, KeyError):  # not of the template's form: the model's mistake, which it is told
            return {"content": "", "tool_calls": [{"name": "", "arguments": text}]}
