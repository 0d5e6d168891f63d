"""Rows as the nine trainers read them: their preparation with their options, which goes on after a row that would stop it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..data import DataReport, prepare_language_modeling, prepare_pairs, prepare_prompts
from ..data.formats import Schema, language_schema, pair_schema, prompt_schema
from ..data.source import schema_of
from ..data.templates import adapted_tokenizer
from ..data.unpaired import prepare_unpaired, unpaired_schema
from ..models import distinct_pad, load_tokenizer

Rows = list[dict[str, Any]]
GIVE_UP = 100
"""After so many rows that cannot be read, the rest is not looked at."""

LIMITS = ("max_length", "max_prompt_length", "max_completion_length", "truncation_mode")
PARTS = {"language": (), "pairs": ("chosen_ids", "rejected_ids"), "unpaired": ("completion_ids",)}


@dataclass(frozen=True)
class Reading:
    """What a trainer makes of rows: `prepared` ones, the numbers of the `rows` that they come from (`origin`), the report, and
    the rows at which it would stop (`broken`: number, reason). `fault` is said where nothing can be read at all."""

    family: str
    schema: Schema | None = None
    prepared: Rows = field(default_factory=list)
    origin: list[int] = field(default_factory=list)
    report: DataReport | None = None
    broken: list[tuple[int, str]] = field(default_factory=list)
    fault: str = ""

    def numbers(self, what: str) -> list[int]:
        """Numbers of the rows of which the report says `what`."""
        return [] if self.report is None else self.report.numbers.get(what, [])


@dataclass(frozen=True)
class TokenRow:
    """One row that a model reads: its ids, what is trained, and which part it is ("" where there is one)."""

    ids: list[int]
    mask: list[int]
    prompt_len: int
    part: str = ""


def tokenizer_for(method: str, processing_class: Any, model: Any, args: Any) -> Any:
    """The tokenizer that the method's trainer would use."""
    names = ("chat_template_path", "eos_token", "pad_token")
    asked = {name: getattr(args, name, None) for name in names}
    tokenizer = adapted_tokenizer(load_tokenizer(processing_class, model), **asked)
    return distinct_pad(tokenizer) if method == "reward" else tokenizer


def _language(rows: Rows, tokenizer: Any, args: Any, name: str) -> Any:
    cuts = not args.packing or args.packing_strategy == "bfd"
    return prepare_language_modeling(
        rows,
        tokenizer,
        max_length=args.max_length if cuts else None,
        truncation_mode=args.truncation_mode,
        text_field=args.dataset_text_field,
        completion_only=args.completion_only_loss,
        assistant_only=args.assistant_only_loss,
        name=name,
    )


def _limits(args: Any) -> dict[str, Any]:
    return {limit: getattr(args, limit) for limit in LIMITS if hasattr(args, limit)}


def _pairs(rows: Rows, tokenizer: Any, args: Any, name: str) -> Any:
    return prepare_pairs(rows, tokenizer, name=name, **_limits(args))


def _unpaired(rows: Rows, tokenizer: Any, args: Any, name: str) -> Any:
    return prepare_unpaired(rows, tokenizer, name=name, **_limits(args))


def _prompts(rows: Rows, tokenizer: Any, args: Any, name: str) -> Any:
    return prepare_prompts(rows, tokenizer, name=name)


def _group_prompts(rows: Rows, tokenizer: Any, args: Any, name: str) -> Any:
    return prepare_prompts(
        rows,
        tokenizer,
        max_length=args.max_prompt_length,
        over_length="keep_end",
        template_kwargs=args.chat_template_kwargs,
        name=name,
    )


READERS: dict[str, tuple[str, Callable[..., Any]]] = {
    "sft": ("language", _language),
    "reward": ("pairs", _pairs),
    "dpo": ("pairs", _pairs),
    "orpo": ("pairs", _pairs),
    "cpo": ("pairs", _pairs),
    "kto": ("unpaired", _unpaired),
    "ppo": ("prompts", _prompts),
    "grpo": ("prompts", _group_prompts),
    "rloo": ("prompts", _group_prompts),
}
SCHEMAS: dict[str, Callable[..., Schema]] = {
    "language": language_schema,
    "pairs": pair_schema,
    "unpaired": unpaired_schema,
    "prompts": prompt_schema,
}


def without_limits(args: Any) -> Any:
    """`args`, a config, without limits on lengths: to see how long rows are."""
    for limit in LIMITS[:3]:
        if hasattr(args, limit):
            setattr(args, limit, None)
    return args


def read(rows: Rows, method: str, args: Any, tokenizer: Any, name: str = "train_dataset") -> Reading:
    """`rows` as the method's trainer would have them."""
    family, prepare = READERS[method]
    with _unsaid():
        try:
            schema = _schema(rows, family, args, name)
        except ValueError as error:
            return Reading(family, fault=str(error))
        broken = _broken(rows, name, lambda part: prepare(part, tokenizer, args, name))
        stopped = {number for number, _ in broken}
        alive = [i for i in range(len(rows)) if i not in stopped]
        if len(broken) >= GIVE_UP or not alive:
            return Reading(family, schema, broken=broken, fault=f"{name}: {len(broken)} rows cannot be read")
        try:
            prepared, report = prepare([rows[i] for i in alive], tokenizer, args, name)
        except (ValueError, TypeError) as error:
            return Reading(family, schema, broken=broken, fault=str(error))
    return Reading(family, schema, prepared, *_placed(prepared, report, alive), broken)


def _schema(rows: Rows, family: str, args: Any, name: str) -> Schema:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if family == "language":
        return language_schema(columns, text_field=args.dataset_text_field, owner=name)
    if family == "unpaired" and {"chosen", "rejected"} & set(columns) and "label" not in columns:
        return pair_schema(columns, owner=name)
    return schema_of(rows[:1], name, SCHEMAS[family])


def _broken(rows: Rows, name: str, attempt: Callable[[Rows], Any]) -> list[tuple[int, str]]:
    """The rows at which `attempt` stops, one after another; each row is read once."""
    numbered = re.compile(rf"{re.escape(name)}, row (\d+): (.*)", re.DOTALL)
    found: list[tuple[int, str]] = []
    start = 0
    while start < len(rows) and len(found) < GIVE_UP:
        try:
            attempt(rows[start:])
            break
        except (ValueError, TypeError) as error:
            said = numbered.match(str(error))
            if said is None:  # about all rows: said again when those that can be read are
                break
            found.append((start + int(said[1]), said[2]))
            start = found[-1][0] + 1
    return found


def _placed(prepared: Rows, report: DataReport, alive: Sequence[int]) -> tuple[list[int], DataReport]:
    """The row numbers of prepared rows, and the report with the numbers of the rows as they were given."""
    numbers = {what: [alive[i] for i in rows] for what, rows in report.numbers.items()}
    marks = ("cut", "merged", "endless")
    dropped = {i for what, rows in numbers.items() if what not in marks for i in rows}
    origin = [i for i in alive if i not in dropped]
    each = len(prepared) // max(1, len(origin))  # labelled answers that came as pairs are two each
    report.numbers.update(numbers)
    return [i for i in origin for _ in range(each)], report


def sequences(row: Mapping[str, Any], family: str) -> list[TokenRow]:
    """What a model reads of a prepared row."""
    if family == "language":
        return [TokenRow(row["input_ids"], row["loss_mask"], row["prompt_len"])]
    prompt = list(row["prompt_ids"])
    if family == "prompts":
        return [TokenRow(prompt, [0] * len(prompt), len(prompt))]
    found = []
    for name in PARTS[family]:
        answer = list(row[name])
        part = name.removesuffix("_ids")
        if family == "unpaired":
            part = "liked" if row["label"] else "not liked"
        found.append(TokenRow(prompt + answer, [0] * len(prompt) + [1] * len(answer), len(prompt), part))
    return found


@contextmanager
def _unsaid() -> Iterator[None]:
    """The preparation's own log lines are left out: a check says the same, with more."""
    logger = logging.getLogger("trellis.data")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
