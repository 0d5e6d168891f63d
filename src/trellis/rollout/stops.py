"""Which tokens end a completion."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jinja2.exceptions import TemplateError


def stop_ids(tokenizer: Any, generation_config: Any = None, extra: Iterable[int] = ()) -> frozenset[int]:
    """The tokenizer's EOS, the generation config's (one or several), the chat template's end of a turn, and `extra`."""
    found = {tokenizer.eos_token_id, turn_end_id(tokenizer), *extra}
    eos = getattr(generation_config, "eos_token_id", None)
    found.update(eos if isinstance(eos, Iterable) else [eos])
    return frozenset(int(i) for i in found if i is not None)


def turn_end_id(tokenizer: Any) -> int | None:
    """The one token that ends the assistant's turn in the chat template; None without a template or such a token."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    said = "Trellis0said0this"
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": said}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False)
    except TemplateError:
        return None
    ids = tokenizer.encode(text.rpartition(said)[2].strip(), add_special_tokens=False)
    if len(ids) == 1 or (ids and ids[0] in tokenizer.all_special_ids):
        return ids[0]
    return None
