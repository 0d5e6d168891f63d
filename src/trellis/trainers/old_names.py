"""Old spellings of config fields: what became of each, and how to read one.

Same meaning → taken, with a FutureWarning that names the new spelling; another meaning → TypeError that says
what to write and why; unknown → TypeError with the closest name. The names themselves: `old_fields`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any


@dataclass(frozen=True)
class Old:
    """What became of an old name. `new` takes its value through `convert`; without `new`, `harmless`
    values (all, if None) are dropped and others refused. `why` says what to write today, `until` which release of TRL (or
    transformers) was the last to know the name, `source` how an expression that is no literal is converted ("" where only its
    value can tell)."""

    new: str | None = None
    convert: Callable[[Any], Any] | None = None
    harmless: tuple[Any, ...] | None = None
    why: str = ""
    until: str = ""
    source: str = ""

    def takes(self, value: Any) -> bool:
        """Whether `value` is accepted without an error."""
        return self.harmless is None or any(
            value is h or (h is not None and value == h) for h in self.harmless
        )


def renamed(
    new: str, convert: Callable[[Any], Any] | None = None, *, until: str = "", source: str = ""
) -> Old:
    """The same thing under a new name; `convert` turns the old value into the new (or raises ValueError)."""
    return Old(new=new, convert=convert, until=until, source=source if convert else "{}")


def needless(why: str, *, until: str = "") -> Old:
    """Accepted and no longer needed."""
    return Old(why=why, until=until)


def refused(why: str, harmless: tuple[Any, ...] = (None,), *, until: str = "") -> Old:
    """Only the `harmless` values (they never did anything) are accepted; any other is an error that says `why`."""
    return Old(harmless=harmless, why=why, until=until)


def old_names(cls: type) -> dict[str, Old]:
    """What `cls` understands besides its fields: each `renamed` table up its class tree."""
    table: dict[str, Old] = {}
    for base in reversed(cls.__mro__):
        for old, entry in base.__dict__.get("renamed", {}).items():
            table[old] = renamed(entry) if isinstance(entry, str) else entry
    return {old: entry for old, entry in table.items() if old not in cls.__dataclass_fields__}  # type: ignore[attr-defined]


def closest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean …?"`, or nothing when no known name is near."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def replacement(cls: type, name: str, value: Any) -> tuple[str, Any] | None:
    """(new name, new value) of the old field `name`, or None where it is no longer needed; says so in a FutureWarning.

    Raises TypeError when the value has no counterpart.
    """
    return today(cls.__name__, name, old_names(cls)[name], value)


def today(owner: str, name: str, entry: Old, value: Any, *, show: bool = True) -> tuple[str, Any] | None:
    """What `name=value` of `owner` is by its `entry`, as `replacement` says it; `show`: with the value."""
    if not entry.takes(value):
        raise TypeError(f"{owner}: {name}={value!r} is not accepted any more: {entry.why}")
    try:
        value = entry.convert(value) if entry.convert else value
    except ValueError as error:
        raise TypeError(f"{owner}: {name}={value!r} is not accepted: {error}") from error
    if entry.harmless is None:
        new = f"{entry.new}={value!r}" if show else entry.new
        says = f"is now {new}" if entry.new else f"is no longer needed: {entry.why}"
        warnings.warn(f"{owner}: {name} {says}", FutureWarning, stacklevel=5)
    return (entry.new, value) if entry.new else None


def translate(cls: type, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """`keywords` with old names replaced by today's. Raises TypeError for an unknown one."""
    names, table = {f.name for f in fields(cls) if f.init}, old_names(cls)
    result = {name: value for name, value in keywords.items() if name in names}
    for name in keywords:
        if name in names:
            continue
        if name not in table:
            raise TypeError(f"{cls.__name__} has no field {name!r}{closest(name, [*names, *table])}")
        found = replacement(cls, name, keywords[name])
        if found is None:
            continue
        new, value = found
        if new in result and result[new] != value:
            raise TypeError(f"{cls.__name__}: {name!r} is the old name of {new!r}; give only one of them")
        result[new] = value
    return result
