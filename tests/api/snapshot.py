"""The public surface as JSON: `python -m tests.api.snapshot` rewrites `public.json` after a wanted change."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any

import trellis
from scripts.reference import declared, default_of

STORED = Path(__file__).with_name("public.json")


def parameter(p: inspect.Parameter) -> str:
    """The parameter without its annotation, whose spelling no caller depends on, and without a function's address."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(p.replace(annotation=inspect.Parameter.empty)))


def describe(value: Any) -> Any:
    """Fields and defaults of a config, public methods and their parameters of a class, parameters of a function."""
    if dataclasses.is_dataclass(value):
        return {f.name: default_of(f) for f in declared(value)}
    if inspect.isclass(value):
        own = [c for c in reversed(value.__mro__) if c.__module__.startswith("trellis.")]
        names = {
            n: c
            for c in own
            for n, m in vars(c).items()
            if inspect.isfunction(m) and (n == "__init__" or n[0] != "_")
        }
        return {
            n: [parameter(p) for p in inspect.signature(getattr(value, n)).parameters.values()]
            for n in sorted(names)
        }
    return [parameter(p) for p in inspect.signature(value).parameters.values()]


def surface() -> dict[str, Any]:
    """{public name: what `describe` says}."""
    return {
        name: describe(getattr(trellis, name)) for name in sorted(trellis.__all__) if name != "__version__"
    }


if __name__ == "__main__":
    STORED.write_text(json.dumps(surface(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {STORED.name}: {len(surface())} names")
