"""Recipes in YAML and command lines in shell scripts: old names by the same tables, line by line."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

from ..trainers.old_fields import FIELDS, MODEL, SCRIPT
from ..trainers.old_names import Old
from .fields import rewritten
from .notes import Note
from .source import UNKNOWN

VERBS = {
    "sft": "SFTConfig",
    "reward": "RewardConfig",
    "dpo": "DPOConfig",
    "kto": "KTOConfig",
    "orpo": "ORPOConfig",
}
VERBS |= {"cpo": "CPOConfig", "ppo": "PPOConfig", "rloo": "RLOOConfig", "grpo": "GRPOConfig"}  # fmt: skip
SIGNS = {
    "ppo": ("num_ppo_epochs", "ppo_epochs", "vf_coef", "response_length"),
    "rloo": ("rloo_k", "normalize_advantages"),
    "grpo": ("num_generations", "reward_funcs"),
    "kto": ("desirable_weight",),
    "cpo": ("cpo_alpha", "simpo_gamma"),
    "dpo": ("beta", "loss_type", "precompute_ref_log_probs"),
    "reward": ("center_rewards_coefficient",),
}
"""By which names a recipe shows whom it is for, in this order; else it is for supervised fine-tuning."""
_LINE = re.compile(
    r"^(?P<indent>[ \t]*)(?P<name>\w+)(?P<colon>[ \t]*:)(?P<space>[ \t]*)(?P<value>[^#\n]*?)(?P<rest>[ \t]*(?:#.*)?)$"
)
_COMMAND = re.compile(r"(?<![\w./-])trl (?=(sft|dpo|kto|reward|rloo|grpo|chat|env|vllm-serve)\b)")
_SCRIPT = re.compile(
    r"(?:python3? (?:-m )?)?(?<![\w/.-])[\w./-]*?trl[/.]scripts[/.](sft|dpo|kto|reward|rloo|grpo)(?:\.py)?\b"
)
_FLAG = re.compile(
    r"(?P<gap>[ \t]+)--(?P<name>\w[\w-]*)(?:(?P<eq>=|[ \t]+)(?P<value>(?!-)(?:'[^']*'|\"[^\"]*\"|[^\s'\"\\]+)))?"
)
_EMPTY = re.compile(r"\\\n[ \t]*(\\?\n)")
"""A continued line on which nothing is left."""
_INSTALL = re.compile(r"pip3? install[^\n]*(?<![\w-])trl(?![\w-])")


def table_of(verb: str) -> dict[str, Old]:
    """What a recipe or command line of `verb` may hold of old names."""
    return {**SCRIPT, **MODEL, **FIELDS[VERBS[verb]]}


def guess(words: set[str]) -> str:
    """The verb that a recipe with these names is for."""
    return next((verb for verb, signs in SIGNS.items() if words & set(signs)), "sft")


def migrate_recipe(text: str, verb: str | None = None) -> tuple[str, list[Note]]:
    """A recipe with today's names; comments and order stay."""
    found = list(_keys(text.split("\n")))
    verb = verb or guess({m["name"] for _, m in found})
    table, lines, notes = table_of(verb), text.split("\n"), []
    for number, match in found:
        name, value = match["name"], match["value"]
        if name not in table:
            continue
        new, shown, why = rewritten(VERBS[verb], name, table[name], _scalar(value), value)
        new, shown, why = _in_yaml(table[name], value, new, shown, why)
        if new is None and not value and shown is not None:
            shown, why = None, f"what stands below it goes with it: {why}"
        if shown is None:
            notes.append(Note(number + 1, f"{name}: {value}", "", why, hand=True))
        elif new is None:
            notes.append(Note(number + 1, f"{name}: {value}", "", why))
            lines[number] = "\0"
        else:
            notes.append(Note(number + 1, f"{name}: {value}", f"{new}: {shown}", why))
            lines[number] = f"{match['indent']}{new}{match['colon']}{match['space']}{shown}{match['rest']}"
    return "\n".join(line for line in lines if line != "\0"), notes


def _keys(lines: list[str]) -> Iterator[tuple[int, re.Match[str]]]:
    """The lines with a key, by their numbers; those of a text that a key with | or > begins are no keys."""
    text_of: int | None = None
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if text_of is not None and (not line.strip() or indent > text_of):
            continue
        text_of, match = None, _LINE.match(line)
        if match:
            yield number, match
            text_of = indent if match["value"][:1] in ("|", ">") else None


def _scalar(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text) if text else UNKNOWN
    except yaml.YAMLError:
        return UNKNOWN


def _in_yaml(
    entry: Old, text: str, new: str | None, shown: str | None, why: str
) -> tuple[str | None, str | None, str]:
    """`rewritten`'s answer with the value as YAML writes it; one that would be an expression is left."""
    if new is None or shown is None or shown == text:
        return new, shown, why
    if _scalar(text) is UNKNOWN:
        return (new, text, why) if not entry.convert else (None, None, f"write {new}: …")
    value = entry.convert(_scalar(text)) if entry.convert else _scalar(text)
    return new, value if isinstance(value, str) else json.dumps(value), why


def migrate_shell(text: str) -> tuple[str, list[Note]]:
    """A shell script whose calls of `trl` are calls of `trellis`, with today's flags."""
    notes: list[Note] = []
    result, place = [], 0
    for match in re.finditer(r"(?:[^\n\\]|\\.|\\\n)*(?:\n|\Z)", text):  # a command with its continued lines
        command, line = match[0], text.count("\n", 0, match.start()) + 1
        result.append(_command(command, line, notes))
        place = match.end()
    return "".join(result) + text[place:], notes


def _command(command: str, line: int, notes: list[Note]) -> str:
    if command.lstrip().startswith("#"):
        return command
    if _INSTALL.search(command):
        notes.append(
            Note(line, "pip install trl", "", "install trellis in its place, as README.md says", hand=True)
        )
    found = _COMMAND.search(command) or _SCRIPT.search(command)
    if found is None:
        return command
    verb, old = found[1], found[0] if found.re is _SCRIPT else f"trl {found[1]}"
    if "accelerate launch" in command or "torchrun" in command:
        notes.append(
            Note(
                line,
                old,
                "",
                f"write trellis {verb} … --nproc N --accelerate ddp|fsdp2|zero2|zero3",
                hand=True,
            )
        )
        return command
    new = f"trellis {verb}" if found.re is _SCRIPT else "trellis "
    notes.append(Note(line, old, f"trellis {verb}", "the command"))
    head, rest = command[: found.start()] + new, command[found.end() :]
    another = _COMMAND.search(rest) or _SCRIPT.search(rest)
    rest, later = (rest[: another.start()], rest[another.start() :]) if another else (rest, "")
    words = _flags(rest, VERBS[verb], table_of(verb), line, notes) if verb in VERBS else rest
    return head + words + (_command(later, line, notes) if later else "")


def _flags(words: str, owner: str, table: dict[str, Old], line: int, notes: list[Note]) -> str:
    def change(match: re.Match[str]) -> str:
        name, text = match["name"].replace("-", "_"), match["value"]
        if name not in table:
            return match[0]
        value = True if text is None else _scalar(text.strip("'\""))
        new, shown, why = rewritten(owner, name, table[name], value, text or "true")
        new, shown, why = _in_yaml(table[name], text or "true", new, shown, why)
        old = f"--{name}" + (f" {text}" if text else "")
        row = line + words.count("\n", 0, match.start())
        if shown is None:
            notes.append(Note(row, old, "", why, hand=True))
            return match[0]
        if new is None:
            notes.append(Note(row, old, "", why))
            return ""
        if text is None and shown == "true":
            notes.append(Note(row, old, f"--{new}", why))
            return f"{match['gap']}--{new}"
        given = shown if shown == text or shown.isidentifier() else shlex.quote(shown)
        notes.append(Note(row, old, f"--{new} {given}", why))
        return f"{match['gap']}--{new}{match['eq'] or ' '}{given}"

    result = _FLAG.sub(change, words)
    return result if result == words else _EMPTY.sub(r"\1", result)
