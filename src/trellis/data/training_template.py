"""Chat templates under training: whether a growing conversation keeps its beginning, and one mended so that it does."""

from __future__ import annotations

from typing import Any

from .chat import common_prefix, require_template, written

THOUGHTS_GO = {
    "loop.index0 > ns.last_query_index": "true",
    "loop.last or (not loop.last and reasoning_content)": "true",
}
"""Conditions under which Qwen3's template leaves the thoughts of earlier turns out, and what keeps them in."""


def _grows(tokenizer: Any, template: str | None = None) -> bool:
    ask, tell = {"role": "user", "content": "two and two ?"}, {"role": "assistant", "content": "four"}
    options = {} if template is None else {"chat_template": template}
    texts = [
        written(tokenizer, [ask], add_generation_prompt=True, **options),
        written(tokenizer, [ask, tell], **options),
        written(tokenizer, [ask, tell, ask], **options),
    ]
    return all(common_prefix(a, b) == len(a) for a, b in zip(texts, texts[1:], strict=False))


def is_chat_template_prefix_preserving(tokenizer: Any) -> bool:
    """Whether what the tokenizer's template writes for a conversation begins with what it wrote for its first messages.

    Where it does not, the tokens of earlier turns change when a later one comes, and training on several turns at once is on
    other tokens than were sampled.
    """
    return _grows(tokenizer)


def get_training_chat_template(tokenizer: Any) -> str | None:
    """A template that keeps the beginning, made of the tokenizer's; None where its own does.

    Of Qwen3's the thoughts of earlier turns stay. Raises ValueError for another template that does not keep it.
    """
    require_template(tokenizer)
    if _grows(tokenizer):
        return None
    mended = str(tokenizer.chat_template)
    for condition, always in THOUGHTS_GO.items():
        mended = mended.replace(condition, always)
    if not _grows(tokenizer, mended):
        raise ValueError(
            "the chat template writes earlier messages in another way when later ones follow, and it is none that can be "
            "mended (Qwen3's can). Change it by hand, and pass it as chat_template_path='template.jinja'"
        )
    return mended
