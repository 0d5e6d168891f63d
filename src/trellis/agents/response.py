"""From the tokens of one answer to a message: what was thought, said and called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..data import turn_end_ids
from ..data.chat import written
from .calls import Message, tagged_calls

THOUGHT = re.compile(r"\s*<think>\s*(.*?)\s*</think>\s*", re.DOTALL)


def parse_response(tokenizer: Any, ids: Sequence[int]) -> Message:
    """The assistant's message in the tokens of an answer: `content`, `reasoning_content` of `<think>`, `tool_calls` of
    `<tool_call>` tags, the tokens that end a turn left out. A call that is no JSON object makes the whole answer content.
    """
    ends = {tokenizer.eos_token_id, *turn_end_ids(tokenizer)}
    kept = list(ids)
    while kept and kept[-1] in ends:
        kept.pop()
    text = tokenizer.decode(kept)
    thought = THOUGHT.match(text)
    message = tagged_calls(text[thought.end() :] if thought else text)
    calls = message.get("tool_calls", [])
    if any(not call["function"]["name"] for call in calls):
        return {"role": "assistant", "content": tokenizer.decode(kept, skip_special_tokens=True)}
    for call in calls:
        del call["id"]
    if thought and thought[1]:
        message["reasoning_content"] = thought[1]
    return message


def add_response_schema(tokenizer: Any) -> Any:
    """The tokenizer itself, after a look whether `parse_response` reads calls as its template writes them; nothing is added.

    Raises ValueError where it does not.
    """
    call = {"name": "add", "arguments": {"a": 1}}
    said = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]}
    text = written(tokenizer, [{"role": "user", "content": "a"}, said])
    found = tagged_calls(text).get("tool_calls", [])
    if [one["function"] for one in found] != [call]:
        raise ValueError(
            'the chat template does not write calls as <tool_call>{"name": …, "arguments": …}</tool_call>, the only form that '
            "parse_response reads; give GRPOTrainer's tool loop a parser of your own"
        )
    return tokenizer
