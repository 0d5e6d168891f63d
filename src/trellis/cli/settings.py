"""The settings of a training run, from its flags or recipe, before anything is loaded: what `check` and `advise` need to know."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..plan.kinds import LEARN_FROM, METHODS, kind_of
from ..rewards.names import named
from .arguments import get_dataset
from .online import chosen, is_default, loaded, rewards
from .recipe import read_recipe
from .train import ONLINE, _splits, parse

COMMAND = re.compile(rf"^#.*\btrellis ({'|'.join(METHODS)})\b", re.MULTILINE)


@dataclass
class Settings:
    """What a method's parser read."""

    method: str
    script: Any
    args: Any
    model: Any
    mixture: Any
    functions: list[Any] = field(default_factory=list)
    """What scores answers, models apart."""
    online: Any = None
    """What scores answers, as it was given, and where a critic comes from; None for methods that learn from data alone."""

    def splits(self) -> tuple[Any, Any]:
        """The training rows, and the held-out ones or None. Raises ValueError where training would not find what it needs."""
        _splits(self.script, self.mixture, self.args)
        mixed = bool(self.mixture.datasets)
        found = get_dataset(self.mixture if mixed else self.script)
        names = (
            ("train", "test") if mixed else (self.script.dataset_train_split, self.script.dataset_test_split)
        )
        return found[names[0]], found.get(names[1])


def settings(method: str, words: Sequence[str], *, complete: bool) -> Settings:
    """What `trellis METHOD words` would train with. A wrong flag or recipe ends the program with one line, as there; `complete`
    settings lack nothing that training needs."""
    parser, (script, args, model, mixture, *more) = parse(method, words)
    found = Settings(method, script, args, model, mixture, online=more[0] if more else None)
    try:
        if method in ONLINE:
            given = [named(f) if isinstance(f, str) else f for f in loaded(more[0].reward_funcs)]
            found.functions = [f for f in given if not isinstance(f, str)]
        if method in ONLINE and complete:
            rewards(more[0], default=args.reward_model_path if method == "ppo" else None)
        if complete:
            _require_model(method, found)
    except ValueError as error:
        parser.error(str(error))
    return found


def _require_model(method: str, found: Settings) -> None:
    if method != "ppo" and not found.model.model_name_or_path:
        raise ValueError("no model: give --model_name_or_path DIRECTORY or a hub name")


def is_recipe(name: str) -> bool:
    """Whether `name` is meant as a recipe."""
    return Path(name).suffix in (".yaml", ".yml")


def method_of(data: str) -> str:
    """The method that a recipe is for (its block, or the command in its comments), or the first one that learns from such data.

    Raises ValueError where that cannot be told.
    """
    if not is_recipe(data):
        return LEARN_FROM[kind_of(columns_of_data(data))][0]
    content = read_recipe(data)
    blocks = [method for method in METHODS if method in content]
    said = COMMAND.findall(Path(data).read_text(encoding="utf-8"))
    found = list(dict.fromkeys(blocks or said))
    if len(found) == 1:
        return found[0]
    if not found and isinstance(content.get("dataset_name"), str):
        return LEARN_FROM[kind_of(columns_of_data(content["dataset_name"]))][0]
    raise ValueError(f"{data}: which method is it for? Write --method {'|'.join(found or METHODS)}")


def columns_of_data(name: str) -> list[str]:
    """The columns of the first split of a data set."""
    from .sources import load_splits

    found = load_splits(name, None, ("train", "test"), False)
    return list(found["train"].column_names)


def model_flag(method: str) -> str:
    """The flag that names the model to train."""
    return "--sft_model_path" if method == "ppo" else "--model_name_or_path"


def policy_of(method: str, found: Settings, *, given: bool) -> str | None:
    """The name of the model to train; None where none was named and no recipe says so."""
    name = found.model.model_name_or_path
    if method != "ppo":
        return name
    if not given and name is None and is_default(found.args, "sft_model_path"):
        return None
    return chosen(found.args, "sft_model_path", name)
