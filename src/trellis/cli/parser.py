"""The parser behind every verb and example script: dataclass fields as flags, a YAML recipe under the flags."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from types import NoneType
from typing import Any, NoReturn, get_args, get_type_hints

from transformers import HfArgumentParser

from ..trainers.old_names import closest, old_names, replacement
from .recipe import apply_env, kinds_of, misfit, read_recipe, strict_yaml

_ALWAYS = ("help", "config")


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """One spelling per flag; HfArgumentParser adds a second one with hyphens, which stays accepted."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        flag = action.option_strings[0] if action.option_strings else action.dest
        if action.choices:
            return f"{flag} {{{','.join(map(str, action.choices))}}}"
        kind = getattr(action.type, "__name__", "") if action.type else ""
        return (
            flag if action.nargs == 0 else f"{flag} {kind.replace('string_to_bool', 'bool').upper()}".rstrip()
        )


class TrellisParser(HfArgumentParser):
    """HfArgumentParser with `--config recipe.yaml` (same names, checked like flags; flags win), old names, and near misses.

    A recipe may hold an `env:` block (environment variables) and a `datasets:` list (see DatasetMixtureConfig), and a block per
    name in `verbs`: the one called `verb` counts, over the lines outside of blocks, the others belong to other programs. A wrong
    command line or recipe ends the program with status 2 and one line. `essentials` are the flags that --help lists first.
    """

    def __init__(
        self,
        dataclass_types: Any = None,
        *,
        essentials: Sequence[str] = (),
        verb: str | None = None,
        verbs: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        self.verb, self.verbs = verb, verbs
        kwargs.setdefault("formatter_class", Help)
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault(
            "conflict_handler", "resolve"
        )  # a name in two dataclasses is one flag that fills both
        self.essentials = [*essentials, "config"]
        super().__init__(dataclass_types, **kwargs)
        self._hints: dict[str, Any] = {}
        self._accept_none()
        self.add_argument("--config", type=str, default=None, help="A YAML recipe; flags given as well win.")

    def parse_args_and_config(
        self,
        args: Iterable[str] | None = None,
        return_remaining_strings: bool = False,
        fail_with_unknown_args: bool = True,
    ) -> tuple[Any, ...]:
        """One instance per dataclass, from the command line and the recipe that it names."""
        words = self._modern(list(sys.argv[1:] if args is None else args))
        path = config_path(words)
        found, unknown = self.parse_known_args([*self._recipe(path), *words] if path else words)
        if unknown and fail_with_unknown_args and not return_remaining_strings:
            self.error(self._unknown(unknown))
        outputs = tuple(self._build(cls, vars(found)) for cls in self.dataclass_types)
        return (*outputs, unknown) if return_remaining_strings else outputs

    def parse_args_into_dataclasses(
        self, args: Any = None, return_remaining_strings: bool = False, **_: Any
    ) -> tuple[Any, ...]:
        """The same as `parse_args_and_config`: scripts written for HfArgumentParser get recipes too."""
        return self.parse_args_and_config(args, return_remaining_strings)

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {message}\n(all flags: {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)

    def format_help(self) -> str:
        """Essentials, then one section per dataclass, then what TrainingArguments brings."""
        formatter = self._get_formatter()
        formatter.add_text(self.description)
        for title, names in self._sections():
            formatter.start_section(title)
            formatter.add_arguments([a for name in names for a in self._actions if a.dest == name])
            formatter.end_section()
        formatter.add_text(self.epilog)
        return f"usage: {self.prog} [--config recipe.yaml] [flags]\n\n" + formatter.format_help()

    def _sections(self) -> list[tuple[str, list[str]]]:
        seen = set(self.essentials)
        sections = [("essentials", self.essentials)]
        inherited: list[str] = []
        for cls in self.dataclass_types:
            ours = [b for b in cls.__mro__ if not b.__module__.startswith("transformers.")]
            own = [
                n for b in ours for n in b.__dict__.get("__annotations__", {})
            ]  # the class's before its base's
            names = [f.name for f in dataclasses.fields(cls) if f.init and f.name not in seen]
            seen.update(names)
            sections.append((cls.__name__, sorted((n for n in names if n in own), key=own.index)))
            inherited += [n for n in names if n not in own]
        return [*sections, ("from transformers.TrainingArguments", inherited), ("help", ["help"])]

    def _build(self, cls: type, values: dict[str, Any]) -> Any:
        keys = [f.name for f in dataclasses.fields(cls) if f.init]
        for key in keys:
            if isinstance(values[key], float) and values[key] != values[key]:
                self.error(f"{key}=nan is no number to train with")
        try:
            return cls(**{k: values[k] for k in keys})
        except (ValueError, TypeError) as error:
            self.error(str(error))
        except (
            Exception
        ) as error:  # what a field is read with in another package: a file, a package, a number too large
            self.error(f"{cls.__name__}: {type(error).__name__}: {error}")

    def _accept_none(self) -> None:
        """`--max_length none` says None where a field may be None."""
        for cls in self.dataclass_types:
            hints = get_type_hints(cls)
            self._hints.update(hints)
            optional = {f.name for f in dataclasses.fields(cls) if type(None) in get_args(hints[f.name])}
            for action in self._actions:
                if action.dest in optional and action.type not in (None, str) and action.choices is None:
                    action.type = _or_none(action.type)

    def _dests(self) -> list[str]:
        return [a.dest for a in self._actions if a.dest not in _ALWAYS]

    def _unknown(self, words: Sequence[str]) -> str:
        flags = [w.split("=")[0] for w in words if w.startswith("--")]
        if not flags:
            return f"what is {' '.join(words)!r} meant for? Every value follows a --flag"
        old = [n for cls in self.dataclass_types for n in _old(cls)]
        hints = (f"{f}{closest(f.lstrip('-').replace('-', '_'), [*self._dests(), *old])}" for f in flags)
        return "unknown flag " + ", ".join(hints)

    def _modern(self, words: list[str]) -> list[str]:
        """The command line with old flags written in today's names."""
        result: list[str] = []
        while words:
            word = words.pop(0)
            name, _, value = (
                word.removeprefix("--").replace("-", "_", word.split("=")[0].count("-")).partition("=")
            )
            owner = next((c for c in self.dataclass_types if word.startswith("--") and name in _old(c)), None)
            if owner is None:
                result.append(word)
                continue
            if "=" not in word and words and not words[0].startswith("--"):
                value = words.pop(0)
            try:
                given = strict_yaml(value) if value else True
            except ValueError:
                given = value
            result += self._replaced(owner, name, given)
        return result

    def _replaced(self, owner: type, name: str, value: Any) -> list[str]:
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            try:
                found = replacement(owner, name, value)
            except (TypeError, ValueError) as error:
                self.error(str(error))
        for note in notes:
            print(f"{self.prog}: {note.message}", file=sys.stderr)
        return [] if found is None else self._words(*found)

    def _recipe(self, path: str) -> list[str]:
        """The recipe at `path` as command-line words; its `env:` block is applied."""
        try:
            content = read_recipe(path)
            apply_env(path, content.pop("env", None))
        except ValueError as error:
            self.error(str(error))
        words: list[str] = []
        for name, value in self._own_block(path, content).items():
            owner = next((c for c in self.dataclass_types if name in _old(c)), None)
            if owner is not None:
                words += self._replaced(owner, name, value)
            elif name in self._dests():
                words += self._words(name, value)
            else:
                self.error(
                    f"{path}: unknown name {name!r}{closest(str(name), [*self._dests(), *self.verbs])}"
                )
        return words

    def _own_block(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        """A recipe without the blocks of verbs, but with the lines of this verb's."""
        for name in set(self.verbs) & set(content):
            if not isinstance(content[name], dict):
                self.error(
                    f"{path}: {name} is a block for `trellis {name}`; expected `name: value` lines in it"
                )
        shared = {name: value for name, value in content.items() if name not in self.verbs}
        return shared | (content.get(str(self.verb), {}) if self.verb in self.verbs else {})

    def _words(self, name: str, value: Any) -> list[str]:
        """`name: value` as command-line words, so that it passes the flag's own type and choices."""
        action = next(a for a in self._actions if a.dest == name)
        fault = misfit(name, value, self._hints[name])
        if value is None and action.default is not None and NoneType not in kinds_of(self._hints[name]):
            fault = f"{name}: expected a value, found nothing; leave the line out for the default"
        if fault:
            self.error(fault)
        if value is None or isinstance(value, dict):
            self.set_defaults(**{name: value})
            return []
        if isinstance(value, list):  # never as words: an entry that begins with -- would be a flag
            self.set_defaults(**{name: [self._entry(action, entry) for entry in value]})
            return []
        return [f"--{name}={value}"]

    def _entry(self, action: argparse.Action, entry: Any) -> Any:
        if isinstance(entry, dict):
            return entry
        try:
            return action.type(str(entry)) if callable(action.type) else str(entry)
        except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
            self.error(f"{action.dest}: an entry of the list is {entry!r} ({error})")


def config_path(words: Sequence[str]) -> str | None:
    """The recipe that a command line names."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    return finder.parse_known_args(words)[0].config


def _or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        return None if text.lower() in ("none", "null") else kind(text)

    convert.__name__ = getattr(kind, "__name__", "value")  # argparse names it in its errors
    return convert


def _old(cls: type) -> Iterable[str]:
    return old_names(cls) if dataclasses.is_dataclass(cls) else ()


TrlParser = TrellisParser
"""The name under which TRL users know it."""
