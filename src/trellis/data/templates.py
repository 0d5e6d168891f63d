"""A tokenizer that writes another chat template or ends its texts with another token; the user's own stays as it is."""

from __future__ import annotations

import copy
import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any


def adapted_tokenizer(
    tokenizer: Any,
    *,
    chat_template_path: str | None = None,
    eos_token: str | None = None,
    pad_token: str | None = None,
) -> Any:
    """`tokenizer` itself when nothing is asked, otherwise a copy with the template, end token and padding token asked for.

    `chat_template_path` is a Jinja file, or a directory or hub id whose tokenizer has a template: the special tokens that it
    writes are added, and its end token is taken. Raises ValueError for a path without a template or an unknown token.
    """
    if chat_template_path is None and eos_token is None and pad_token is None:
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)
    if chat_template_path is not None:
        take_template(tokenizer, chat_template_path)
    if eos_token is not None:
        tokenizer.eos_token = known_token(tokenizer, eos_token, "eos_token")
    if pad_token is not None:
        tokenizer.pad_token = known_token(tokenizer, pad_token, "pad_token")
    return tokenizer


def known_token(tokenizer: Any, token: str, option: str) -> str:
    """`token` itself. Raises ValueError, with the nearest special tokens, when the vocabulary does not have it."""
    vocabulary = tokenizer.get_vocab()
    if token in vocabulary:
        return token
    special = sorted({*map(str, tokenizer.all_special_tokens), *tokenizer.get_added_vocab()})
    near = get_close_matches(token, special, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{option}={token!r} is not in the vocabulary; its special tokens are {special}.{hint}")


def take_template(tokenizer: Any, path: str) -> None:
    """Give `tokenizer` itself the template at `path` (see `adapted_tokenizer`), with the tokens that it writes."""
    file = Path(os.fspath(path)).expanduser()
    if file.is_file():
        tokenizer.chat_template = file.read_text(encoding="utf-8")
        return
    if file.suffix in (".jinja", ".j2"):
        raise ValueError(f"chat_template_path={path!r}: no such file (from here: {Path.cwd()})")
    from transformers import AutoTokenizer

    try:
        source = AutoTokenizer.from_pretrained(os.fspath(path), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"chat_template_path={path!r} is neither a Jinja file nor a directory or hub id with a tokenizer"
        ) from error
    if not source.chat_template:
        raise ValueError(f"chat_template_path={path!r}: the tokenizer found there has no chat template")
    tokenizer.chat_template = source.chat_template
    written = [t for t in source.get_added_vocab() if t in str(source.chat_template)]
    new = [t for t in [*written, source.eos_token] if t and t not in tokenizer.get_vocab()]
    if new:
        tokenizer.add_special_tokens({"extra_special_tokens": new}, replace_extra_special_tokens=False)
    if source.eos_token:
        tokenizer.eos_token = source.eos_token
