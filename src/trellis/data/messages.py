"""One value of a row: a conversation, a text, token ids, a mask; or one error that says what was found and expected."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

Row = Mapping[str, Any]
Message = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython")
"""Roles as templates write them; another one is the template's business, a misspelt one of these is an error."""

SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "system": "system",
    "tool": "tool",
    "function_response": "tool",
    "observation": "tool",
}
ANSWERS = ("completion", "answer", "output", "response", "assistant")
"""Columns in which a conversation as JSON may be what the model shall learn to write."""

JSON_CHAT = re.compile(r"""\s*\[\s*\{\s*['"](role|from|content|value)['"]\s*:""")


def is_conversation(value: Any) -> bool:
    """Whether `value` is a list of messages (role/content, or ShareGPT's from/value)."""
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(m, Mapping) for m in value)


def as_messages(value: Any, role: str) -> list[Message]:
    """A conversation in role/content form; a string becomes one message of `role`. Raises ValueError for anything else.

    A conversation that begins with the user (`role="user"`) may not have a tool's answer before the assistant's first turn.
    """
    if isinstance(value, str):
        return [{"role": role, "content": as_text(value, role)}]
    if not is_conversation(value):
        raise ValueError(
            f"expected a list of messages like {{'role': 'user', 'content': '…'}}, found {describe(value)}"
        )
    found = [_message(m, i) for i, m in enumerate(value)]
    roles = [message["role"] for message in found]
    if role == "user" and "tool" in roles and "assistant" not in roles[: roles.index("tool")]:
        raise ValueError(
            f"message {roles.index('tool')} is a tool's answer, but no assistant spoke before it; expected the assistant's "
            "message with the call first"
        )
    return found


def _message(message: Row, place: int) -> Message:
    # Arrow writes None into keys that only other messages have; a template must not see them.
    known = {k: v for k, v in message.items() if v is not None}
    if "role" not in known and "from" not in known:
        raise ValueError(
            f"a message needs `role` and `content` (or `from` and `value`), found keys {sorted(map(str, message))} in message "
            f"{place}"
        )
    if "role" not in known:
        known = _from_sharegpt(known, place)
    known["role"] = _role(known["role"], place)
    if "content" in known:
        known["content"] = _content(known["content"], place)
    elif not set(known) - {"role", "name"}:  # a call, or what was thought, may stand alone
        raise ValueError(
            f"message {place} ({known['role']}) has no `content`; expected a text (an empty one says '')"
        )
    if not isinstance(known.get("tool_calls", []), list | tuple):
        raise ValueError(
            f"`tool_calls` of message {place} must be a list of calls, found {describe(known['tool_calls'])}"
        )
    return known


def _from_sharegpt(message: Message, place: int) -> Message:
    role = SHAREGPT_ROLES.get(str(message["from"]))
    if role is None:
        raise ValueError(f"unknown speaker {message['from']!r} in `from`; known: {sorted(SHAREGPT_ROLES)}")
    if "value" not in message:
        raise ValueError(f"message {place} (from {message['from']!r}) has no `value`; expected a text")
    return {"role": role, "content": message["value"]}


def _role(role: Any, place: int) -> str:
    if not isinstance(role, str) or not role:
        raise ValueError(
            f"`role` of message {place} must be one of {', '.join(ROLES)}, found {describe(role)}"
        )
    near = get_close_matches(role.lower(), ROLES, n=1, cutoff=0.8)
    if role not in ROLES and near:
        raise ValueError(f"unknown role {role!r} in message {place}; did you mean {near[0]!r}?")
    return role


def _content(content: Any, place: int) -> str:
    if isinstance(content, str):
        return _encodable(content, f"`content` of message {place}")
    if not isinstance(content, list | tuple):
        raise ValueError(f"`content` of message {place} must be a text, found {describe(content)}")
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) else None
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, Mapping) else describe(part)
            raise ValueError(
                f"`content` of message {place} has a part that is no text ({kind}); these trainers read text only: expected a "
                "string, or parts like {'type': 'text', 'text': '…'}"
            )
    return _encodable("".join(part["text"] for part in content), f"`content` of message {place}")


def as_text(value: Any, column: str) -> str:
    """`value` itself when it is a string that can be tokenised; otherwise a ValueError that names the column."""
    if not isinstance(value, str):
        raise ValueError(f"`{column}` must be a string or a list of messages, found {describe(value)}")
    if value[:1].strip() in ("", "[") and column not in ANSWERS and JSON_CHAT.match(value):
        raise ValueError(
            f"`{column}` is a conversation written as text, found {describe(value)}; expected a list of messages. Write "
            f"row[{column!r}] = json.loads(row[{column!r}])"
        )
    return _encodable(value, f"`{column}`")


def _encodable(text: str, what: str) -> str:
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} holds half of a surrogate pair at character {error.start} ({text[error.start]!a}), which no tokenizer "
            "reads; write text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
        ) from error
    return text


def as_ids(value: Any, column: str) -> list[int]:
    """Token ids as a plain list of ints (a list, or anything with `tolist`). Raises ValueError naming the column."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list | tuple):
        value = [i if type(i) is int or isinstance(i, bool) else _whole(i) for i in value]
        if all(type(i) is int for i in value):
            return value
    raise ValueError(f"`{column}` must be one list of integers per row, found {describe(value)}")


def _whole(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def as_token_ids(value: Any, column: str, vocabulary: int | None) -> list[int]:
    """`as_ids`, each of them a token: 0 … vocabulary − 1 (None: any from 0)."""
    ids = as_ids(value, column)
    if ids and (min(ids) < 0 or (vocabulary is not None and max(ids) >= vocabulary)):
        place = next(i for i, one in enumerate(ids) if not 0 <= one < (vocabulary or one + 1))
        last = "" if vocabulary is None else f" … {vocabulary - 1}"
        raise ValueError(
            f"`{column}` has {ids[place]} at position {place}, expected the tokenizer's ids 0{last}. Tokenise with the tokenizer "
            "that is given as processing_class"
        )
    return ids


def as_marks(value: Any, column: str, count: int) -> list[int]:
    """A mask of 0 and 1 (or False and True), one entry for each of `count` tokens. Raises ValueError naming the column."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, list | tuple) or any(mark not in (0, 1) for mark in value):
        raise ValueError(f"`{column}` must be one list of 0 and 1 per row, found {describe(value)}")
    if len(value) != count:
        raise ValueError(f"`{column}` has {len(value)} entries for {count} tokens; expected one each")
    return [int(mark) for mark in value]


def as_tools(value: Any) -> list[Any] | None:
    """A row's tools: a list, or the same as a JSON string; None or empty → None. Raises ValueError for anything else."""
    try:
        tools = json.loads(value) if isinstance(value, str) and value else value
    except json.JSONDecodeError as error:
        raise ValueError(
            f"`tools` is no JSON ({error}); expected a list of tools, found {describe(value)}"
        ) from error
    if tools and (not isinstance(tools, Sequence) or isinstance(tools, str | bytes)):
        raise ValueError(f"`tools` must be a list of tools, or the same as JSON, found {describe(value)}")
    return list(tools) if tools else None


def template_options(row: Row) -> dict[str, Any]:
    """A row's `chat_template_kwargs`, without the None that Arrow writes for keys of other rows."""
    options = row.get("chat_template_kwargs") or {}
    if not isinstance(options, Mapping):
        raise ValueError(f"`chat_template_kwargs` must be a dict, found {describe(options)}")
    return {k: v for k, v in options.items() if v is not None}


def describe(value: Any) -> str:
    """The type of a value and the value itself, shortened and without line breaks, for an error."""
    text = repr(value).encode("ascii", "backslashreplace").decode() if _broken(value) else repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '…'}"


def _broken(value: Any) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in repr(value)[:60])
