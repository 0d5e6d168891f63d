"""Conversations to token ids: rendered once by the tokenizer's own template, the seam found in token space."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .messages import Message

GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")

QUIET = {"verbose": False}
"""What is too long is our report's business; the tokenizer would warn once about rows that are about to be cut."""


def require_template(tokenizer: Any) -> None:
    """Raises ValueError when the tokenizer cannot render a conversation."""
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            "the rows are conversations, but the tokenizer has no chat template (chat_template=None). "
            "Write tokenizer.chat_template = open('template.jinja').read() and pass processing_class=tokenizer, "
            "or set chat_template_path='template.jinja' in the config."
        )


def require_generation_marks(tokenizer: Any) -> None:
    """Raises ValueError when the template does not say which tokens the assistant wrote."""
    require_template(tokenizer)
    if not GENERATION_MARK.search(str(tokenizer.chat_template)):
        raise ValueError(
            "assistant_only_loss=True needs a chat template that marks the assistant's tokens with {% generation %} … "
            "{% endgeneration %}; this tokenizer's has no such marks. Put them round the assistant's content and its turn end "
            "(chat_template_path='template.jinja'), or use `prompt` + `completion` rows with completion_only_loss=True."
        )


def _applied(tokenizer: Any, messages: Sequence[Message], *, tokenize: bool = True, **kwargs: Any) -> Any:
    """What `apply_chat_template` returns. A template is a program of somebody else's: whatever it raises is a ValueError."""
    try:
        return tokenizer.apply_chat_template(
            list(messages), tokenize=tokenize, tokenizer_kwargs=QUIET, **kwargs
        )
    except Exception as error:
        roles = [message.get("role") for message in messages]
        raise ValueError(
            f"the chat template refuses a conversation with the roles {roles} ({type(error).__name__}: {error}). Change the "
            "row, or choose another template with chat_template_path"
        ) from error


def render(tokenizer: Any, messages: Sequence[Message], *, tools: Any = None, **kwargs: Any) -> list[int]:
    """The ids of a conversation exactly as the template writes it; special tokens are the template's own business."""
    require_template(tokenizer)
    return list(_applied(tokenizer, messages, tools=tools, return_dict=False, **kwargs))


def render_prompt(
    tokenizer: Any, messages: Sequence[Message], *, tools: Any = None, **kwargs: Any
) -> list[int]:
    """The ids before an answer: with the generation prompt, or, after an assistant's message, open for its continuation."""
    return render(tokenizer, messages, tools=tools, **before_answer(messages), **kwargs)


def before_answer(messages: Sequence[Message]) -> dict[str, bool]:
    """What tells a template that an answer, or the rest of one, follows these messages."""
    goes_on = messages[-1]["role"] == "assistant"
    return {"continue_final_message": True} if goes_on else {"add_generation_prompt": True}


def written(tokenizer: Any, messages: Sequence[Message], *, tools: Any = None, **kwargs: Any) -> str:
    """A conversation as the text that the template writes."""
    require_template(tokenizer)
    return _applied(tokenizer, messages, tokenize=False, tools=tools, **kwargs)


def render_assistant_mask(
    tokenizer: Any, messages: Sequence[Message], *, tools: Any = None, **kwargs: Any
) -> tuple[list[int], list[int]]:
    """ids and a 0/1 mask that is 1 on what stands between the template's generation marks."""
    require_generation_marks(tokenizer)
    marked = {"return_dict": True, "return_assistant_tokens_mask": True}
    encoded = _applied(tokenizer, messages, tools=tools, **marked, **kwargs)
    return list(encoded["input_ids"]), [int(x) for x in encoded["assistant_masks"]]


def common_prefix(*sequences: Sequence[Any]) -> int:
    """How many leading elements all sequences share."""
    count = 0
    for items in zip(*sequences, strict=False):
        if any(item != items[0] for item in items[1:]):
            break
        count += 1
    return count


def turn_end_ids(tokenizer: Any) -> frozenset[int]:
    """The special tokens that the template writes right after an assistant's message: a model trained on it stops there.

    Empty without a template, or where the template ends a turn with ordinary text.
    """
    if not getattr(tokenizer, "chat_template", None):
        return frozenset()
    answers = [
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": text}] for text in ("b", "c d e")
    ]
    first, second = (render(tokenizer, messages) for messages in answers)
    tail = common_prefix(first[::-1], second[::-1])
    special = set(getattr(tokenizer, "all_special_ids", ())) | set(
        getattr(tokenizer, "added_tokens_decoder", {})
    )
    ends = [i for i in first[len(first) - tail :] if i in special]
    return frozenset(ends[:1])
