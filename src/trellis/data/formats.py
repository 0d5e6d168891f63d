"""Which format a data set is in: columns in, a schema out, or one error that says what was found, expected and what to type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

QUESTION_ANSWER = (
    ("question", "answer"),
    ("instruction", "output"),
    ("query", "response"),
    ("prompt", "response"),
)
CONTEXT_COLUMNS = ("input", "context", "system")
PROMPT_NAMES = ("question", "instruction", "query", "text")
EXPECTED = {
    "language": "`text` | `prompt` + `completion` | `messages` | `conversations` | `input_ids`",
    "pairs": "`chosen` + `rejected` | `prompt` + `chosen` + `rejected` | `chosen_input_ids` + `rejected_input_ids`",
    "prompts": "`prompt` | `messages` | `input_ids`",
    "unpaired": "`prompt` + `completion` + `label` | `prompt_ids` + `completion_ids` + `label` | `chosen` + `rejected`",
}
TARGETS = {
    "language": ("text", "prompt", "completion", "messages", "conversations", "input_ids"),
    "pairs": ("prompt", "chosen", "rejected", "chosen_input_ids", "rejected_input_ids", "margin"),
    "prompts": ("prompt", "messages", "input_ids"),
    "unpaired": ("prompt", "completion", "label", "chosen", "rejected"),
}


@dataclass(frozen=True)
class Schema:
    """A format's name and where its parts are: {canonical name: column}; `note` says what was mapped, if anything was."""

    kind: str
    columns: dict[str, str] = field(default_factory=dict)
    note: str = ""


def _same(kind: str, *names: str, note: str = "") -> Schema:
    return Schema(kind, {name: name for name in names}, note)


def _first(found: set[str], candidates: Iterable[tuple[str, Schema]]) -> Schema | None:
    return next((schema for needs, schema in candidates if set(needs.split()) <= found), None)


def schema_error(family: str, columns: Sequence[str], owner: str, *, why: str = "") -> ValueError:
    """The error for columns that fit no format of `family`: found, expected, the nearest names and a fix of two lines."""
    found, wanted = sorted(map(str, columns)), [t for t in TARGETS[family] if t not in columns]
    near = {
        t: m[0]
        for t in wanted
        if (m := get_close_matches(t, found, n=1, cutoff=0.6)) and m[0] not in TARGETS[family]
    }
    lines = [f"{owner}: no known data format. Found columns: {found}. Expected: {EXPECTED[family]}."]
    if why:
        return ValueError("\n".join([*lines, why]))
    if near:
        lines.append("Nearest: " + ", ".join(f"{old!r} → {new!r}" for new, old in near.items()) + ".")
    new = next(iter(near), wanted[0] if wanted else TARGETS[family][0])
    old = near.get(new, "your_column")
    lines.append(f"Fix:\n  dataset = dataset.rename_column({old!r}, {new!r})")
    lines.append(f"  # or, for a list: rows = [{{{new!r}: row[{old!r}]}} for row in rows]")
    return ValueError("\n".join(lines))


def language_schema(columns: Sequence[str], text_field: str = "text", owner: str = "train_dataset") -> Schema:
    """The format of a data set for supervised fine-tuning. Raises ValueError where no format, or more than one alias, fits."""
    found = set(columns)
    candidates = [
        ("input_ids", _same("tokens", "input_ids")),
        ("messages", _same("messages", "messages")),
        ("conversations", Schema("messages", {"messages": "conversations"})),
        ("prompt completion", _same("prompt_completion", "prompt", "completion")),
        (text_field, Schema("text", {"text": text_field})),
    ]
    if text_field != "text":  # an explicit wish goes before what the columns suggest
        candidates.insert(0, candidates.pop())
    if schema := _first(found, candidates):
        return schema
    matches = [pair for pair in QUESTION_ANSWER if set(pair) <= found]
    extra = sorted(found & set(CONTEXT_COLUMNS))
    if len(matches) == 1 and not extra:
        prompt, completion = matches[0]
        note = f"read column {prompt!r} as `prompt` and {completion!r} as `completion`"
        return Schema("prompt_completion", {"prompt": prompt, "completion": completion}, note)
    why = ""
    if matches:
        also = f" beside {extra}" if extra else ""
        question, answer = matches[0]
        parts = r"\n".join(f"{{row[{name!r}]}}" for name in (question, *extra, answer))
        why = f'The columns {[list(m) for m in matches]}{also} are ambiguous.\nFix:\n  formatting_func=lambda row: f"{parts}"'
    raise schema_error("language", columns, owner, why=why)


def _choose_prompt(names: Sequence[str]) -> str:
    fix = f"Fix:\n  dataset = dataset.rename_column({names[0]!r}, 'prompt')"
    return f"More than one column can be the prompt: {list(names)}.\n{fix}"


def pair_schema(columns: Sequence[str], owner: str = "train_dataset") -> Schema:
    """The format of a preference data set (`prompt` optional, `margin` optional)."""
    found = set(columns)
    candidates = [
        (
            "prompt_ids chosen_ids rejected_ids",
            _same("pair_tokens", "prompt_ids", "chosen_ids", "rejected_ids"),
        ),
        (
            "prompt_input_ids chosen_input_ids rejected_input_ids",
            Schema(
                "pair_tokens",
                {
                    "prompt_ids": "prompt_input_ids",
                    "chosen_ids": "chosen_input_ids",
                    "rejected_ids": "rejected_input_ids",
                },
            ),
        ),
        (
            "chosen_input_ids rejected_input_ids",
            Schema("pair_tokens", {"chosen_ids": "chosen_input_ids", "rejected_ids": "rejected_input_ids"}),
        ),
        ("prompt chosen rejected", _same("pairs", "prompt", "chosen", "rejected")),
    ]
    if schema := _first(found, candidates):
        return schema
    if not {"chosen", "rejected"} <= found:
        raise schema_error("pairs", columns, owner)
    prompts = [name for name in PROMPT_NAMES[:3] if name in found]
    if len(prompts) > 1:
        why = _choose_prompt(prompts)
        raise schema_error("pairs", columns, owner, why=why)
    columns_of = {"chosen": "chosen", "rejected": "rejected"} | ({"prompt": prompts[0]} if prompts else {})
    return Schema("pairs", columns_of, f"read column {prompts[0]!r} as `prompt`" if prompts else "")


def prompt_schema(columns: Sequence[str], owner: str = "train_dataset") -> Schema:
    """The format of a data set of prompts; every other column reaches the reward functions."""
    found = set(columns)
    candidates = [
        ("prompt_ids", Schema("prompt_tokens", {"input_ids": "prompt_ids"})),
        ("prompt", _same("prompts", "prompt")),
        ("input_ids", _same("prompt_tokens", "input_ids")),
        ("messages", Schema("prompts", {"prompt": "messages"}, "read column 'messages' as `prompt`")),
    ]
    if schema := _first(found, candidates):
        return schema
    names = [name for name in PROMPT_NAMES if name in found]
    if len(names) == 1:
        return Schema("prompts", {"prompt": names[0]}, f"read column {names[0]!r} as `prompt`")
    why = _choose_prompt(names) if names else ""
    raise schema_error("prompts", columns, owner, why=why)
