"""Whether a data file can be read, and if not, in which line it goes wrong."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

READERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}
PACKED = (".gz", ".bz2", ".xz", ".zst")
HOW = "a file (jsonl, json, csv, parquet, txt, also .gz), a directory of such files, or one written by save_to_disk"
FIRST_MIB = 1 << 20
_OPEN: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def reader_of(path: Path) -> str | None:
    """Which of `datasets`' readers takes the file, by its name; None: no one does."""
    suffixes = [s for s in path.suffixes if s not in PACKED]
    return READERS.get(suffixes[-1]) if suffixes else None


def check_file(path: Path, *, whole: bool = True) -> None:
    """Raises ValueError for what `datasets` would misread without a word, or crash on: JSON lines that are no objects, a CSV
    whose columns share a name. `whole=False` looks at the first MiB only."""
    kind = reader_of(path)
    if path.suffix == ".zst":
        _require_zstandard(path)  # and leave the rest to it
    elif kind == "json":
        with _named(path):
            _check_objects(path, whole)
    elif kind == "csv":
        with _named(path):
            _check_header(path)


@contextmanager
def readable(*paths: Path) -> Iterator[None]:
    """Turns whatever reading these files raises into one ValueError that names the file and, where it can be found, the line."""
    try:
        yield
    except Exception as error:
        for path in paths:
            with _named(path):
                _search(path)
        said = " ".join(str(root(error)).split()) or type(root(error)).__name__
        where = ", ".join(map(str, paths[:3]))
        raise ValueError(f"{where} cannot be read: {said[:300].rstrip('.')}. Expected {HOW}") from error


def root(error: BaseException) -> BaseException:
    """Where a chain of exceptions began."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return error


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What opening and decoding can raise, as a ValueError about `path`."""
    try:
        yield
    except UnicodeDecodeError as error:
        found = "utf-16" if error.object[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin1"
        raise ValueError(
            f"{path} is not UTF-8 (byte 0x{error.object[error.start]:02x}: {error.reason}). Write it again with "
            f"encoding='utf-8', for example: iconv -f {found} -t utf-8 FILE"
        ) from error
    except EOFError as error:
        raise ValueError(f"{path} ends in the middle of its compressed data; copy it again") from error
    except (OSError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); expected a file whose name says what it is, with {path.suffix} last"
        ) from error


def _require_zstandard(path: Path) -> None:
    from importlib.util import find_spec

    if find_spec("zstandard") is None:
        raise ValueError(
            f"{path}: reading .zst needs a package that is not installed; write pip install zstandard"
        )


def _open(path: Path) -> IO[bytes]:
    return _OPEN.get(path.suffix, open)(path, "rb")


def _lines(path: Path, whole: bool = True) -> Iterator[tuple[int, str]]:
    """(number, text) of the lines that are not blank, from line 1."""
    seen = 0
    with _open(path) as file:
        for number, raw in enumerate(file, 1):
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            seen += len(raw)
            if text:
                yield number, text
            if seen > FIRST_MIB and not whole:
                return


def _check_objects(path: Path, whole: bool) -> None:
    """Every line begins and ends like an object, or the file as a whole is an array of objects (or one object)."""
    first = next(_lines(path), None)
    if first is None:
        raise ValueError(f"{path} holds 0 rows, expected at least 1")
    if first[1].startswith("[") or (first[1].startswith("{") and not first[1].endswith("}")):
        return _check_array(path)
    for number, text in _lines(path, whole):
        if not (text.startswith("{") and text.endswith("}")):
            _refuse_line(path, number, text)
    return None


def _refuse_line(path: Path, number: int, text: str) -> None:
    shown = text if len(text) <= 60 else text[:57] + "…"
    raise ValueError(
        f'{path}, line {number}: expected one JSON object per line, such as {{"text": "…"}}, found {shown!r}'
    )


def _check_array(path: Path) -> None:
    with _open(path) as file:
        text = file.read().decode("utf-8-sig")
    try:
        rows = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(
            f"{path} is no JSON ({error}); expected a list of objects, or one per line"
        ) from error
    rows = rows if isinstance(rows, list) else [rows]
    wrong = next((i for i, row in enumerate(rows) if not isinstance(row, dict)), None)
    if wrong is not None:
        raise ValueError(
            f'{path}, row {wrong}: expected an object such as {{"text": "…"}}, found {type(rows[wrong]).__name__}'
        )
    if not rows:
        raise ValueError(f"{path} holds 0 rows, expected at least 1")


def _check_header(path: Path) -> None:
    header = next(csv.reader(text + "\n" for _, text in _lines(path)), None)
    if header is None:
        raise ValueError(f"{path} holds 0 rows, expected a line of column names and at least 1 row")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: the column {twice[0]!r} occurs twice in {header}; give each its own name")


def _search(path: Path) -> None:
    """Raises ValueError for the first line at fault, if there is one."""
    kind = None if path.suffix == ".zst" else reader_of(path)
    if kind == "json":
        _check_objects(path, True)
        _search_json(path)
    elif kind == "csv":
        _search_csv(path)
    elif kind == "text" and not any(True for _ in _lines(path)):
        raise ValueError(f"{path} holds 0 rows, expected at least 1")


def _search_json(path: Path) -> None:
    for number, text in _lines(path):
        try:
            json.dumps(json.loads(text, object_pairs_hook=_once), ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            if text.startswith("[") or number == 1 and not text.endswith("}"):
                return  # an array over several lines, checked as a whole
            said = "half of a surrogate pair" if isinstance(error, UnicodeEncodeError) else str(error)
            raise ValueError(f"{path}, line {number}: {said}; expected one JSON object per line") from error


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    pairs = list(pairs)
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"the key {twice!r} occurs twice")
    return dict(pairs)


def _search_csv(path: Path) -> None:
    rows = csv.reader((text + "\n" for _, text in _lines(path)), strict=True)
    count, width = 0, None
    try:
        for row in rows:
            width = width or len(row)
            if len(row) > width:
                raise ValueError(
                    f"{path}, line {rows.line_num}: {len(row)} fields for {width} columns; put a field with a comma in quotes"
                )
            count += 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num}: {error} (is a quote not closed?)") from error
    if count < 2:
        raise ValueError(f"{path} holds 0 rows, expected a line of column names and at least 1 row")
