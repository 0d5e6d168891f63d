"""Rows to token ids: pure, picklable functions of (row, index, encoding), so that `datasets` can cache and spread them.

Every function also returns the bookkeeping columns of `STATS`, from which `report` is written and which are then removed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .chat import common_prefix, render, render_assistant_mask, render_prompt
from .messages import (
    as_ids,
    as_marks,
    as_messages,
    as_text,
    as_token_ids,
    as_tools,
    is_conversation,
    template_options,
)

STATS = ("_drop", "_cut", "_need", "_trained", "_seam", "_stopped")
"""Why the row is dropped ("" = kept); tokens cut; max_length needed to keep one trained token; trained tokens; 1 where the
prompt's tokens are not a prefix of the row's; 1 where the row ends in a trained stop token."""

TURN_TAIL = 3
"""A stop token counts as the end of a row when at most two tokens (a line break, say) follow it."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Encoding:
    """Everything that turns a row into ids: the tokenizer, where the parts are, and the options."""

    tokenizer: Any
    kind: str
    columns: dict[str, str] = field(default_factory=dict)
    prefix: tuple[int, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    vocabulary: int | None = None
    max_length: int | None = None
    truncation_mode: str = "keep_start"
    completion_only: bool | None = None
    assistant_only: bool = False
    over_length: str = "drop"
    max_prompt_length: int | None = None
    max_completion_length: int | None = None
    tools: list[Any] | None = None
    template: dict[str, Any] = field(default_factory=dict)


@dataclass
class Tokens:
    """One row: ids, a 0/1 mask of what is trained, how many ids are the prompt, and whether its seam moved."""

    ids: list[int]
    mask: list[int]
    prompt_len: int = 0
    seam_moved: bool = False


def special_prefix(tokenizer: Any) -> tuple[int, ...]:
    """The ids that the tokenizer writes before every text (BOS, for most; nothing, for some)."""
    framed, bare = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = (i for i in range(len(framed) - len(bare) + 1) if framed[i : i + len(bare)] == bare)
    return tuple(framed[: next(starts, 0)])


def row_ids(row: Row, enc: Encoding, name: str) -> list[int]:
    """The token ids of a row's part `name`, each of them one of the tokenizer's."""
    column = enc.columns[name]
    return as_token_ids(row[column], column, enc.vocabulary)


def plain_ids(enc: Encoding, text: str, *, end: bool) -> list[int]:
    """Ids of a plain text: the tokenizer's prefix once, and with `end` an EOS where the text does not bring one."""
    ids = list(enc.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    prefix = list(enc.prefix)
    if ids[: len(prefix)] != prefix:
        ids = prefix + ids
    eos = enc.tokenizer.eos_token_id
    if end and eos is not None and (not ids or ids[-1] != eos):
        ids.append(eos)
    return ids


def truncate(tokens: Tokens, max_length: int | None, mode: str) -> int:
    """Cut a row to `max_length` at its end ("keep_start") or its beginning ("keep_end"); returns how many tokens went."""
    cut = 0 if max_length is None else max(0, len(tokens.ids) - max_length)
    if cut and mode == "keep_start":
        tokens.ids, tokens.mask = tokens.ids[:max_length], tokens.mask[:max_length]
        tokens.prompt_len = min(tokens.prompt_len, len(tokens.ids))
    elif cut:
        tokens.ids, tokens.mask = tokens.ids[cut:], tokens.mask[cut:]
        tokens.prompt_len = max(0, tokens.prompt_len - cut)
    return cut


def needed_length(mask: Sequence[int], mode: str) -> int:
    """The smallest max_length that keeps one trained token (the first of a row is never trained); 0 when there is none."""
    trained = [i for i, marked in enumerate(mask) if marked and i > 0]
    if not trained:
        return 0
    return trained[0] + 1 if mode == "keep_start" else max(2, len(mask) - trained[-1])


def _stopped(enc: Encoding, ids: Sequence[int], mask: Sequence[int]) -> int:
    tail = zip(ids[-TURN_TAIL:], mask[-TURN_TAIL:], strict=True)
    return int(any(marked and i in enc.stop_ids for i, marked in tail))


def language_row(row: Row, index: int, enc: Encoding) -> dict[str, Any]:
    """`input_ids`, `loss_mask`, `prompt_len` of one row for supervised fine-tuning."""
    tokens = ENCODERS[enc.kind](row, enc)
    need = needed_length(tokens.mask, enc.truncation_mode)
    cut = truncate(tokens, enc.max_length, enc.truncation_mode)
    tokens.mask[:1] = [0] * len(tokens.mask[:1])  # the first token has no past
    trained = sum(tokens.mask)
    drop = "" if trained else ("every trained token was cut" if need else "no token to train")
    return {
        "input_ids": tokens.ids,
        "loss_mask": tokens.mask,
        "prompt_len": tokens.prompt_len,
        "_drop": drop,
        "_cut": cut,
        "_need": need,
        "_trained": trained,
        "_seam": int(tokens.seam_moved),
        "_stopped": _stopped(enc, tokens.ids, tokens.mask),
    }


def _text(row: Row, enc: Encoding) -> Tokens:
    value = row[enc.columns["text"]]
    if is_conversation(value):
        return _conversation(row, enc, value)
    _refuse_assistant_only(enc)
    ids = plain_ids(enc, as_text(value, enc.columns["text"]), end=True)
    return Tokens(ids, [1] * len(ids))


def _messages(row: Row, enc: Encoding) -> Tokens:
    return _conversation(row, enc, row[enc.columns["messages"]])


def _conversation(row: Row, enc: Encoding, value: Any) -> Tokens:
    messages, options = (
        as_messages(value, "user"),
        {"tools": as_tools(row.get("tools")), **template_options(row)},
    )
    if enc.assistant_only:
        return Tokens(*render_assistant_mask(enc.tokenizer, messages, **options))
    ids = render(enc.tokenizer, messages, **options)
    return Tokens(ids, [1] * len(ids))


def _prompt_completion(row: Row, enc: Encoding) -> Tokens:
    prompt, completion = row[enc.columns["prompt"]], row[enc.columns["completion"]]
    if is_conversation(prompt) or is_conversation(completion):
        ids, mask, prompt_len, moved = _chat_completion(row, enc, prompt, completion)
    else:
        _refuse_assistant_only(enc)
        before = plain_ids(enc, as_text(prompt, enc.columns["prompt"]), end=False)
        ids = plain_ids(enc, prompt + as_text(completion, enc.columns["completion"]), end=True)
        prompt_len = common_prefix(before, ids)
        mask, moved = [1] * len(ids), prompt_len < len(before)
    if enc.completion_only is not False:
        mask = [0] * prompt_len + mask[prompt_len:]
    return Tokens(ids, mask, prompt_len, moved)


def _chat_completion(
    row: Row, enc: Encoding, prompt: Any, completion: Any
) -> tuple[list[int], list[int], int, bool]:
    options = {"tools": as_tools(row.get("tools")), **template_options(row)}
    prompt, completion = as_messages(prompt, "user"), as_messages(completion, "assistant")
    before = render_prompt(enc.tokenizer, prompt, **options)
    if enc.assistant_only:
        ids, mask = render_assistant_mask(enc.tokenizer, prompt + completion, **options)
    else:
        ids = render(enc.tokenizer, prompt + completion, **options)
        mask = [1] * len(ids)
    prompt_len = common_prefix(before, ids)
    return ids, mask, prompt_len, prompt_len < len(before)


def _refuse_assistant_only(enc: Encoding) -> None:
    if enc.assistant_only:
        raise ValueError(
            "assistant_only_loss=True needs conversations, found plain text. "
            "Write assistant_only_loss=False, or rows like {'messages': [{'role': 'user', …}, {'role': 'assistant', …}]}."
        )


def tokens_of_row(row: Row) -> dict[str, Any]:
    """A row of token ids (with `labels` or masks, or without) as a prepared row."""
    tokens = _tokens(row, Encoding(None, "tokens", {"input_ids": "input_ids"}))
    return {"input_ids": tokens.ids, "loss_mask": tokens.mask, "prompt_len": tokens.prompt_len}


def _tokens(row: Row, enc: Encoding) -> Tokens:
    ids = row_ids(row, enc, "input_ids")
    mask = [1] * len(ids)
    if enc.assistant_only and row.get("assistant_masks") is None:
        raise ValueError(
            "assistant_only_loss=True needs a column `assistant_masks` beside `input_ids`; found none"
        )
    if row.get("labels") is not None:
        mask = labels_mask(ids, as_ids(row["labels"], "labels"))
    names = ["loss_mask", "assistant_masks"] + ([] if enc.completion_only is False else ["completion_mask"])
    for name in (n for n in names if row.get(n) is not None):
        mask = [a & b for a, b in zip(mask, as_marks(row[name], name, len(ids)), strict=True)]
    if row.get("attention_mask") is not None:
        keep = as_marks(row["attention_mask"], "attention_mask", len(ids))
        ids, mask = ([x for x, real in zip(xs, keep, strict=True) if real] for xs in (ids, mask))
    return Tokens(ids, mask, _prompt_len(row.get("prompt_len"), ids, mask))


def _prompt_len(found: Any, ids: Sequence[int], mask: Sequence[int]) -> int:
    if found is None:
        return _leading_zeros(mask)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= len(ids):
        raise ValueError(
            f"`prompt_len` must be a number of tokens from 0 to the row's {len(ids)}, found {found!r}"
        )
    return found


def _leading_zeros(mask: Sequence[int]) -> int:
    return next((i for i, marked in enumerate(mask) if marked), 0)


def labels_mask(ids: Sequence[int], labels: Sequence[int]) -> list[int]:
    """1 where a label is not -100. Raises ValueError when a label is another token than the one at its place."""
    if len(labels) != len(ids):
        raise ValueError(f"`labels` has {len(labels)} entries for {len(ids)} `input_ids`; expected one each")
    wrong = next((i for i, (a, b) in enumerate(zip(ids, labels, strict=True)) if b not in (a, -100)), None)
    if wrong is not None:
        raise ValueError(
            f"`labels` differ from `input_ids` at position {wrong} ({labels[wrong]} for {ids[wrong]}); expected the same id or "
            "-100 (unshifted, as in transformers). Write labels = [i if trained else -100 for i, trained in …]."
        )
    return [int(label != -100) for label in labels]


ENCODERS: dict[str, Callable[[Row, Encoding], Tokens]] = {
    "text": _text,
    "messages": _messages,
    "prompt_completion": _prompt_completion,
    "tokens": _tokens,
}
