"""Rows that hold conversations, as TRL's names know them: told apart, brought into one form, written out as text."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from .chat import before_answer, common_prefix, written
from .messages import SHAREGPT_ROLES, Row, template_options

CHAT_COLUMNS = ("prompt", "chosen", "rejected", "completion", "messages")
FORMS = (
    {"messages"},
    {"prompt"},
    {"prompt", "completion"},
    {"prompt", "completion", "label"},
    {"prompt", "chosen", "rejected"},
    {"chosen", "rejected"},
)


def _begins_with(value: Any, keys: tuple[str, str]) -> bool:
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, Mapping) and set(keys) <= set(first)


def is_conversational(example: Row) -> bool:
    """Whether one of the row's columns `prompt`, `chosen`, `rejected`, `completion`, `messages` is a list of messages."""
    return any(_begins_with(example.get(name), ("role", "content")) for name in CHAT_COLUMNS)


def is_conversational_from_value(example: Row) -> bool:
    """Whether the row's `conversations` are messages in ShareGPT's form (from, value)."""
    return _begins_with(example.get("conversations"), ("from", "value"))


def maybe_convert_to_chatml(example: Row) -> dict[str, Any]:
    """The row with role and content instead of from and value, `conversations` as `messages`; any other row's copy.

    ShareGPT's speakers get the roles of chat templates: human → user, gpt → assistant.
    """
    row = {
        name: [_as_role(m) for m in value] if _is_chat(name, value) else value
        for name, value in example.items()
    }
    if "conversations" in row:
        row["messages"] = row.pop("conversations")
    return row


def _is_chat(name: str, value: Any) -> bool:
    return name in (*CHAT_COLUMNS, "conversations") and isinstance(value, list)


def _as_role(message: Any) -> Any:
    if not isinstance(message, Mapping):
        return message
    new = {"from": "role", "value": "content"}
    row = {new.get(key, key): value for key, value in message.items()}
    if "from" in message:
        row["role"] = SHAREGPT_ROLES.get(row["role"], row["role"])
    return row


def apply_chat_template(
    example: Row, tokenizer: Any, tools: list[Any] | None = None, **template_kwargs: Any
) -> dict[str, Any]:
    """The row's conversations as texts: `messages` as `text`, every other column under its own name, `label` as it is.

    A prompt is the text that its answers share, so that prompt + answer is what the template writes for the whole. A row's
    `chat_template_kwargs` and `template_kwargs` reach the template. Raises KeyError for columns that make no known form,
    ValueError where the template refuses.
    """
    found = {name for name in (*CHAT_COLUMNS, "label") if name in example}
    if found not in FORMS:
        raise KeyError(
            f"the columns {sorted(found)} make no row that can be written; expected one of "
            f"{[sorted(form) for form in FORMS]}"
        )
    options = {"tools": tools, **template_options(example), **template_kwargs}
    if "messages" in found:
        return {"text": written(tokenizer, example["messages"], **options)}
    answers: dict[str, Any] = {
        name: example[name] for name in ("chosen", "rejected", "completion") if name in found
    }
    kept = {"label": example["label"]} if "label" in found else {}
    if "prompt" not in found:
        return {name: written(tokenizer, answer, **options) for name, answer in answers.items()}
    return {**_with_prompt(tokenizer, list(example["prompt"]), answers, options), **kept}


def _with_prompt(
    tokenizer: Any, prompt: list[Any], answers: Mapping[str, Sequence[Any]], options: Mapping[str, Any]
) -> dict[str, str]:
    role = prompt[-1]["role"]
    if role not in ("user", "tool", "assistant"):
        raise ValueError(
            f"the prompt ends with a message of {role!r}; expected user or tool, before an answer, or assistant, to go on from"
        )
    text = written(tokenizer, prompt, **before_answer(prompt), **options)
    whole = {name: written(tokenizer, prompt + list(a), **options) for name, a in answers.items()}
    at = common_prefix(text, *whole.values())
    return {"prompt": text[:at], **{name: wrote[at:] for name, wrote in whole.items()}}


def maybe_apply_chat_template(
    example: Row, tokenizer: Any, tools: list[Any] | None = None, **template_kwargs: Any
) -> Any:
    """`apply_chat_template` of a row of conversations; any other row itself."""
    if not is_conversational(example):
        return example
    return apply_chat_template(example, tokenizer, tools, **template_kwargs)


def prepare_multimodal_messages(messages: Sequence[Row], images: Sequence[Any]) -> list[dict[str, Any]]:
    """A copy of the messages whose contents are lists of parts, with `images` where `{"type": "image"}` stands.

    Texts become text parts; where no message has parts yet, the images come first in the first user message. Raises ValueError
    for another number of images than places, and for a role that is none of system, user, assistant.
    """
    waiting, found = list(images), []
    plain = all(isinstance(message["content"], str) for message in messages)
    for message in messages:
        if message["role"] not in ("system", "user", "assistant"):
            raise ValueError(
                f"a message's role is {message['role']!r}; expected 'system', 'user' or 'assistant'"
            )
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else copy.deepcopy(content)
        if plain and message["role"] == "user":
            parts, plain = [*({"type": "image"} for _ in images), *parts], False
        found.append({**message, "content": parts})
    places = [part for message in found for part in message["content"] if part["type"] == "image"]
    if len(places) != len(waiting):
        raise ValueError(f"{len(waiting)} images were given for {len(places)} places in the messages")
    for place, image in zip(places, waiting, strict=True):
        place["image"] = image
    return found
