"""What to type next: advise → check → estimate → train → report, as far as this version has the verbs."""

from __future__ import annotations

import shlex
from typing import Any

from . import VERBS
from .settings import is_recipe


def after_check(asked: Any, given: Any, check: Any) -> str:
    """The command after a check: mend, look again, or go on."""
    name = shlex.quote(asked.data)
    again = f" --method {given.method}" if asked.method and not is_recipe(asked.data) else ""
    again += f" --model {shlex.quote(asked.model)}" if asked.model else ""
    data = shlex.quote(asked.fix) if asked.fix else name
    if asked.fix and not is_recipe(asked.data):
        return f"trellis check {data}{again}"
    if asked.fix:
        return f"trellis check {name} --dataset_name {data}"
    if check.mendable:
        return f"trellis check {name}{again} --fix mended.jsonl"
    if check.errors:
        return f"mend what is said above, then trellis check {name}{again}"
    if is_recipe(asked.data):
        return go_on(name, given.method)
    return f"trellis advise {name}{_model(asked)} --out recipe.yaml"


def _model(asked: Any) -> str:
    return f" --model {shlex.quote(asked.model)}" if asked.model else ""


def go_on(recipe: str, method: str) -> str:
    """The command after a recipe was checked: what comes next in the order of use."""
    return f"trellis estimate {recipe}" if "estimate" in VERBS else f"trellis {method} --config {recipe}"
