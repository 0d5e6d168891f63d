"""From what a model wrote to a message: its text, and the tools it calls."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
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
    """The calls of a message; arguments that are JSON in a string are read."""
    return [_call(entry.get("function", entry)) for entry in message.get("tool_calls") or ()]


def _call(function: dict[str, Any]) -> Call:
    name, arguments = str(function.get("name") or ""), function.get("arguments")
    if isinstance(arguments, str):
        try:
            read = json.loads(arguments)
        except ValueError:
            read = arguments
        arguments = read if isinstance(read, dict) else arguments
    if arguments is None:
        arguments = {}
    return Call(name, arguments if isinstance(arguments, dict | str) else json.dumps(arguments, default=str))


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
        if self.own:
            return self._by_template(list(before), list(ids), tools, plain)
        message = (self.parse or tagged_calls)(self.tokenizer.decode(body))
        if not isinstance(message, dict):
            raise TypeError(
                f"parse must return a message such as {{'role': 'assistant', 'content': …}}, found {type(message).__name__}"
            )
        return {"role": "assistant", **message} if message.get("tool_calls") or self.parse else plain

    def _by_template(self, before: list[int], ids: list[int], tools: Any, plain: Message) -> Message:
        try:
            return {**plain, **self.tokenizer.parse_response(ids, prefix=before, tools=tools)}
        except ValueError:  # no message of the template's form: the model's mistake, which it is told
            unread = {"type": "function", "function": {"name": "", "arguments": plain["content"]}}
            return {**plain, "tool_calls": [unread]}
