"""Which files there are to migrate, and by whom each is read."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

from .notebook import migrate_notebook
from .notes import CannotRead, Migrated, Note
from .plain import migrate_recipe, migrate_shell
from .python import migrate_python

KINDS = (".py", ".ipynb", ".yaml", ".yml", ".sh", ".bash")
SKIPPED = ("__pycache__", "node_modules", "site-packages", "venv", "env", "build", "dist")


def migrate_file(path: Path, verb: str | None = None, *, asked: bool = True) -> Migrated:
    """One file, read by what its name ends in. Raises CannotRead; a YAML file that was not `asked` for by name is touched only
    where it names a model."""
    if path.suffix not in KINDS:
        raise CannotRead(f"{path}: expected a file that ends in {', '.join(KINDS)}, or a folder")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise CannotRead(f"{path}: {error}") from error
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    ends = "\r\n" if "\r\n" in text else "\n"
    plain = text.removeprefix(mark).replace(ends, "\n")
    after, notes = _migrated(plain, path, verb, asked)
    # Lines that end in more than one way stay as they are where there is nothing to change.
    return Migrated(str(path), text, text if after == plain else mark + after.replace("\n", ends), notes)


def _migrated(text: str, path: Path, verb: str | None, asked: bool) -> tuple[str, list[Note]]:
    if path.suffix == ".py":
        return migrate_python(text, str(path))
    if path.suffix == ".ipynb":
        return migrate_notebook(text, str(path))
    if path.suffix in (".sh", ".bash"):
        return migrate_shell(text)
    if not asked and "model_name_or_path:" not in text:
        return text, []
    return migrate_recipe(text, verb)


def files_of(path: Path) -> Iterator[Path]:
    """`path`, or the files of a folder that may be migrated, in order; links are left, as what they lead to may lie elsewhere.
    Raises CannotRead where there is nothing."""
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise CannotRead(f"{path}: there is no such file or folder")
    for found in sorted(path.rglob("*")):
        inner = found.relative_to(path).parts
        hidden = any(part.startswith(".") or part in SKIPPED for part in inner[:-1])
        if found.is_file() and not found.is_symlink() and found.suffix in KINDS and not hidden:
            yield found


def diff(found: Migrated) -> str:
    """A unified diff of what changes."""
    before, after = (text.splitlines(keepends=True) for text in (found.before, found.after))
    path = found.path.lstrip("/")
    return "".join(difflib.unified_diff(before, after, f"a/{path}", f"b/{path}"))
