"""The three preparations: any accepted data set in, prepared rows and a report out, once, before the first step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from .chat import require_generation_marks, require_template, turn_end_ids
from .formats import Schema, language_schema, pair_schema, prompt_schema
from .messages import is_conversation
from .pack import STRATEGIES, pack
from .preference import pair_row, prompt_row
from .report import DataReport, build_report, require_rows
from .source import (
    Prepared,
    as_source,
    column,
    columns_of,
    drop_columns,
    first_row,
    is_stream,
    map_rows,
    schema_of,
    select,
)
from .tokenize import STATS, Encoding, language_row, special_prefix

logger = logging.getLogger(__name__)

PEEK = 32
"""Rows at the beginning of a stream that the report is made of."""


def prepare_language_modeling(
    dataset: Any,
    tokenizer: Any,
    *,
    max_length: int | None = None,
    truncation_mode: str = "keep_start",
    text_field: str = "text",
    completion_only: bool | None = None,
    assistant_only: bool = False,
    packing: str | None = None,
    formatting_func: Callable[[Mapping[str, Any]], str] | None = None,
    num_proc: int | None = None,
    name: str = "train_dataset",
) -> tuple[Prepared, DataReport]:
    """Rows `{"input_ids", "loss_mask", "prompt_len"}` for supervised fine-tuning (packed: and `seq_lengths`), and their report.

    `completion_only=None` trains the completion where there is a prompt and everything elsewhere. `packing` is None or one of
    `STRATEGIES`. Raises TypeError or ValueError for data that cannot be read, and ValueError when nothing is left to train.
    """
    check_lengths(max_length, truncation_mode, packing)
    source = as_source(dataset, name, text_field)
    if formatting_func is not None:
        source = map_rows(source, format_row, {"function": formatting_func}, owner=name, num_proc=num_proc)
        text_field = "text"
    else:
        refuse_images(source, name)
    schema = schema_of(source, name, language_schema, text_field=text_field)
    if completion_only and schema.kind in ("text", "messages"):
        raise ValueError(
            f"{name}: completion_only_loss=True needs `prompt` + `completion` rows, found {schema.kind!r} rows. "
            "Write completion_only_loss=None, split the rows, or use assistant_only_loss=True for conversations."
        )
    joined = _joined(source, name)  # rows that came packed stay as they are
    packing = None if joined else packing
    row_length = max_length if packing in (None, "bfd") and not joined else None
    enc = encoding(tokenizer, schema, source, name, assistant_only=assistant_only)
    enc = replace(
        enc, max_length=row_length, truncation_mode=truncation_mode, completion_only=completion_only
    )
    mapped = map_rows(source, language_row, {"enc": enc}, owner=name, num_proc=num_proc, keep=joined)
    prepared, report = finish(mapped, name, option="max_length", value=row_length)
    if not is_stream(prepared) and report.stopped == 0 and enc.stop_ids and schema.kind != "tokens":
        logger.warning("%s: no row ends in a trained stop token; the model will not learn to stop", name)
    if packing is not None and max_length is not None:
        prepared = pack(prepared, max_length, packing)
    return prepared, report


def _joined(source: Any, name: str) -> tuple[str, ...]:
    return ("seq_lengths",) if {"input_ids", "seq_lengths"} <= set(columns_of(source, name)) else ()


def prepare_pairs(
    dataset: Any,
    tokenizer: Any,
    *,
    max_length: int | None = None,
    max_prompt_length: int | None = None,
    max_completion_length: int | None = None,
    truncation_mode: str | None = None,
    tools: list[Any] | None = None,
    num_proc: int | None = None,
    name: str = "train_dataset",
) -> tuple[Prepared, DataReport]:
    """Rows `{"prompt_ids", "chosen_ids", "rejected_ids", "margin"?}` of a preference data set, and their report.

    Pairs whose longer side has more than `max_length` tokens are dropped (`truncation_mode=None`), or lose the beginning of
    their prompt ("keep_end") or the end of their answers ("keep_start"); `max_prompt_length` always takes a prompt's beginning,
    `max_completion_length` an answer's end. Pairs of equal answers are dropped; every cut and drop is counted. `tools` are
    those of rows that bring none.
    """
    check_lengths(max_length, truncation_mode or "keep_start")
    check_limit("max_prompt_length", max_prompt_length)
    check_limit("max_completion_length", max_completion_length)
    source = as_source(dataset, name, "chosen")
    refuse_images(source, name)
    schema = schema_of(source, name, pair_schema)
    enc = replace(
        encoding(tokenizer, schema, source, name),
        max_length=max_length,
        max_prompt_length=max_prompt_length,
        max_completion_length=max_completion_length,
        over_length=truncation_mode or "drop",
        tools=tools,
    )
    mapped = map_rows(source, pair_row, {"enc": enc}, owner=name, num_proc=num_proc)
    return finish(mapped, name, option="max_length", value=max_length)


def refuse_images(source: Any, name: str) -> None:
    """Raises ValueError for rows with pictures: a model that learns from their text alone learns to make things up."""
    found = [column for column in ("image", "images") if column in columns_of(source, name)]
    if found:
        raise ValueError(
            f"{name}: found column {found[0]!r}; these trainers read text only. Write "
            f"dataset.remove_columns({found[0]!r}) to train on the text of the rows."
        )


def prepare_prompts(
    dataset: Any,
    tokenizer: Any,
    *,
    max_length: int | None = None,
    over_length: str = "drop",
    template_kwargs: dict[str, Any] | None = None,
    num_proc: int | None = None,
    name: str = "train_dataset",
) -> tuple[Prepared, DataReport]:
    """Rows `{"prompt_ids", "prompt", …every other column}`, and their report. `prompt` is the original text or messages.

    A prompt of more than `max_length` tokens is dropped (`over_length="drop"`) or loses its beginning ("keep_end"); both are
    counted. Empty prompts are dropped. `template_kwargs` reach the chat template; a row's own win.
    """
    check_lengths(max_length)
    if over_length not in ("drop", "keep_end"):
        raise ValueError(f"over_length={over_length!r} is not known; expected 'drop' or 'keep_end'")
    source = as_source(dataset, name, "prompt")
    columns = columns_of(source, name)
    schema = schema_of(source, name, prompt_schema)
    limits: dict[str, Any] = {
        "max_length": max_length,
        "over_length": over_length,
        "template": template_kwargs or {},
    }
    enc = replace(encoding(tokenizer, schema, source, name), **limits)
    used = {*schema.columns.values(), "prompt", "prompt_ids", "attention_mask"}
    keep = [c for c in columns if c not in used]
    mapped = map_rows(source, prompt_row, {"enc": enc}, owner=name, keep=keep, num_proc=num_proc)
    return finish(mapped, name, option="the prompt's max_length", value=max_length, unit="prompt tokens")


def check_limit(option: str, value: int | None) -> None:
    """Raises ValueError for a limit that no row could keep."""
    if value is not None and value < 1:
        raise ValueError(f"{option}={value}: expected a positive number of tokens, or None for no limit")


def check_lengths(
    max_length: int | None, truncation_mode: str = "keep_start", packing: str | None = None
) -> None:
    """Raises ValueError for option values that no data could satisfy."""
    check_limit("max_length", max_length)
    if truncation_mode not in ("keep_start", "keep_end"):
        raise ValueError(
            f"truncation_mode={truncation_mode!r} is not known; expected 'keep_start' or 'keep_end'"
        )
    if packing is not None and packing not in STRATEGIES:
        raise ValueError(f"packing_strategy={packing!r} is not known; expected one of {list(STRATEGIES)}")
    if packing is not None and max_length is None:
        raise ValueError(
            "packing needs a row length: found max_length=None. Write max_length=1024, say, or packing=False"
        )


def encoding(
    tokenizer: Any, schema: Schema, source: Any, name: str, *, assistant_only: bool = False
) -> Encoding:
    """How `schema` is tokenised; the template is checked on the first row, before any other is touched."""
    if schema.note:
        logger.info("%s: %s", name, schema.note)
    first = first_row(source, name)
    try:
        if any(is_conversation(first.get(c)) for c in schema.columns.values()):
            require_generation_marks(tokenizer) if assistant_only else require_template(tokenizer)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    eos = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    return Encoding(
        tokenizer=tokenizer,
        kind=schema.kind,
        columns=dict(schema.columns),
        prefix=special_prefix(tokenizer),
        stop_ids=turn_end_ids(tokenizer).union(eos),
        vocabulary=1 + max(tokenizer.get_vocab().values(), default=-1),
        assistant_only=assistant_only,
    )


def format_row(
    row: Mapping[str, Any], index: int, function: Callable[[Mapping[str, Any]], str]
) -> dict[str, str]:
    """{"text": formatting_func(row)}. Raises ValueError when it returns anything but a string."""
    try:
        text = function(row)
    except Exception as error:  # code of the user's
        raise ValueError(
            f"formatting_func raised {type(error).__name__}: {error} (the row's columns are {sorted(map(str, row))})"
        ) from error
    if not isinstance(text, str):
        raise ValueError(f"formatting_func must return one string per row, found {type(text).__name__}")
    return {"text": text}


def kept(row: Mapping[str, Any]) -> bool:
    """Whether the row function kept this row."""
    return not row["_drop"]


def finish(
    mapped: Prepared, name: str, *, option: str, value: int | None, unit: str = "trained tokens"
) -> tuple[Prepared, DataReport]:
    """The rows that were kept, without bookkeeping, and the report (logged). Raises ValueError when none was kept."""
    if is_stream(mapped):
        rows: Sequence[Mapping[str, Any]] = list(islice(mapped, PEEK))
        report = build_report({s: [row[s] for row in rows] for s in STATS}, name, unit=unit, sampled=True)
        prepared = drop_columns(mapped.filter(kept), STATS)
    else:
        stats = {s: column(mapped, s) for s in STATS}
        report = build_report(stats, name, unit=unit)
        keep = [i for i, why in enumerate(stats["_drop"]) if not why]
        prepared = drop_columns(select(mapped, keep), STATS)
    require_rows(report, option, value)
    lost = report.rows_dropped or report.rows_cut or report.seams_moved
    log = logger.warning if lost else logger.info
    log("%s", report.line)
    return prepared, report
