"""A tokenizer whose template knows tools, tools, and a policy that says what a function tells it to."""

from __future__ import annotations

import json

from tests.builders import tiny_tokenizer
from trellis.rollout import Completion

TEMPLATE = r"""{%- if tools %}<|im_start|>system
{{ tools | tojson }}<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}
{%- for call in message['tool_calls'] or [] %}
{%- if message['content'] or not loop.first %}{{ '\n' }}{% endif %}<tool_call>
{{ {'name': call['function']['name'], 'arguments': call['function']['arguments']} | tojson }}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def tool_tokenizer(template: str = TEMPLATE):
    """A tiny tokenizer with a template that writes tools, calls and answers."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first
        b: the second
    """
    return a + b


def divide(a: float, b: float) -> float:
    """Divide two numbers.

    Args:
        a: what is divided
        b: by what
    """
    return a / b


def asks(name: str, words: str = "", **arguments: object) -> str:
    """A turn that calls a tool."""
    body = json.dumps({"name": name, "arguments": arguments})
    return f"{words}\n<tool_call>\n{body}\n</tool_call>" if words else f"<tool_call>\n{body}\n</tool_call>"


def chat(text: str, **columns: object) -> dict:
    """A prepared row."""
    return {"prompt": [{"role": "user", "content": text}], "prompt_ids": [0], **columns}


class Policy:
    """A turn of `say(what was said so far, seed)`, one invented log-probability per token; `seen`: every call's arguments."""

    def __init__(self, tokenizer, say, *, stop="<|im_end|>", most=10_000):
        self.tokenizer, self.say, self.most = tokenizer, say, most
        self.stop = tokenizer.convert_tokens_to_ids(stop)
        self.seen: list[tuple[list[list[int]], list[int], int | None]] = []

    def __call__(self, prompts, seeds, limit=None):
        self.seen.append(([list(p) for p in prompts], list(seeds), limit))
        return [
            self.one(self.tokenizer.decode(prompt), seed, min(self.most, limit or self.most))
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]

    def one(self, before, seed, limit):
        ids = [*self.tokenizer(self.say(before, seed), add_special_tokens=False)["input_ids"], self.stop]
        cut = ids[:limit]
        logps = [-0.01 * (i + 1) for i in range(len(cut))]
        return Completion(cut, logps, logps, "stop" if len(cut) == len(ids) else "length")


def by_turn(*words: str):
    """A policy's words: the first of `words` in its first turn, and so on; the last for ever."""
    return lambda before, seed: words[min(before.count("<|im_start|>assistant"), len(words)) - 1]
