"""Malformed inputs as tables: what is wrong with four good rows, for which kind of data, and what must be said about it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, IterableDataset

Rows = list[dict[str, Any]]
FAMILIES = ("language", "pairs", "unpaired", "prompts")
MAIN = {"language": "text", "pairs": "chosen", "unpaired": "completion", "prompts": "prompt"}
CHAT_MAIN = {"language": "messages", "pairs": "chosen", "unpaired": "completion", "prompts": "prompt"}
IDS = {
    "language": "input_ids",
    "pairs": "chosen_ids",
    "unpaired": "completion_ids",
    "prompts": "prompt_ids",
}
BAD = 2
"""The row at fault, where one is."""


def good(family: str) -> Rows:
    """Four rows that every trainer of the family takes."""
    words = ("good", "very good", "it is easy", "the price is great")
    rows: dict[str, Callable[[str], dict[str, Any]]] = {
        "language": lambda w: {"text": f"the battery is {w}"},
        "pairs": lambda w: {"prompt": "the battery is", "chosen": f" {w}", "rejected": " bad"},
        "unpaired": lambda w: {"prompt": "the battery is", "completion": f" {w}", "label": len(w) > 5},
        "prompts": lambda w: {"prompt": f"the battery is {w}"},
    }
    return [rows[family](w) for w in words]


def chats(family: str) -> Rows:
    """The same as conversations."""
    rows = good(family)

    def said(text: str, role: str = "assistant") -> list[dict[str, Any]]:
        return [{"role": role, "content": text}]

    make: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "language": lambda r: {"messages": said("is it good ?", "user") + said(r["text"])},
        "pairs": lambda r: {
            "prompt": said(r["prompt"], "user"),
            "chosen": said(r["chosen"]),
            "rejected": said(r["rejected"]),
        },
        "unpaired": lambda r: {
            "prompt": said(r["prompt"], "user"),
            "completion": said(r["completion"]),
            "label": r["label"],
        },
        "prompts": lambda r: {"prompt": said(r["prompt"], "user")},
    }
    return [make[family](row) for row in rows]


def token_rows(family: str) -> Rows:
    """The same as token ids."""
    make: dict[str, Callable[[int], dict[str, Any]]] = {
        "language": lambda i: {"input_ids": [10 + i, 20, 30, 40]},
        "pairs": lambda i: {"prompt_ids": [10 + i, 20], "chosen_ids": [30, 31], "rejected_ids": [40]},
        "unpaired": lambda i: {"prompt_ids": [10 + i, 20], "completion_ids": [30, 31], "label": i % 2 == 0},
        "prompts": lambda i: {"prompt_ids": [10 + i, 20, 30]},
    }
    return [make[family](i) for i in range(4)]


@dataclass(frozen=True)
class Case:
    """A malformed input. `says`: what its error must match; None: it is handled, and `lost` rows are counted as dropped."""

    name: str
    make: Callable[[str], Any]
    says: str | None
    lost: int = 0
    cut: bool = False
    families: tuple[str, ...] = FAMILIES

    def __repr__(self) -> str:
        return self.name


def value(
    found: Any, of: Callable[[str], Rows] = good, names: dict[str, str] = MAIN
) -> Callable[[str], Rows]:
    """Good rows but for one value of row `BAD`."""

    def make(family: str) -> Rows:
        rows = copy.deepcopy(of(family))
        rows[BAD][names[family]] = found
        return rows

    return make


def everywhere(found: Any) -> Callable[[str], Rows]:
    return lambda family: [{**row, MAIN[family]: found} for row in good(family)]


def field(name: str, found: Any, of: Callable[[str], Rows] = good) -> Callable[[str], Rows]:
    """Good rows, and one more column, in row `BAD` only where `found` says so."""

    def make(family: str) -> Rows:
        rows = copy.deepcopy(of(family))
        rows[BAD][name] = found
        return rows

    return make


def column(name: str, found: Any, of: Callable[[str], Rows] = good) -> Callable[[str], Rows]:
    return lambda family: [{**row, name: found} for row in of(family)]


def messages(*said: Any) -> Callable[[str], Rows]:
    """Conversations, row `BAD` with these messages where the trainer reads them."""
    return value(list(said), chats, CHAT_MAIN)


def renamed(family: str) -> Rows:
    old = MAIN[family]
    return [{(k + "x" if k == old else k): v for k, v in row.items()} for row in good(family)]


def one_row_lacks(family: str) -> Rows:
    rows = good(family)
    del rows[BAD][MAIN[family]]
    return rows


class Lengthless:
    """Rows that can only be iterated over."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)


class Short(Lengthless):
    """Says that it has more rows than it gives."""

    def __len__(self) -> int:
        return len(self.rows) + 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


CONTAINERS = [
    Case("an empty list", lambda f: [], "0 rows"),
    Case("an empty Dataset", lambda f: Dataset.from_list([]), "0 rows"),
    Case("a Dataset of columns without rows", lambda f: Dataset.from_list(good(f)).select([]), "0 rows"),
    Case("an empty stream", lambda f: IterableDataset.from_generator(lambda: iter(())), "0 rows|stream"),
    Case("a generator", lambda f: (row for row in good(f)), "found generator"),
    Case("a dict of splits", lambda f: {"train": good(f)}, r"train_dataset=dataset\['train'\]"),
    Case("a dict of columns", lambda f: {MAIN[f]: ["a", "b"]}, "found a dict"),
    Case("a path", lambda f: "data.jsonl", "found str"),
    Case("a whole number as data", lambda f: 3, "found int"),
    Case("a set", lambda f: {"a", "b"}, "found set"),
    Case("no length", lambda f: Lengthless(good(f)), "found Lengthless"),
    Case("a length that is too large", lambda f: Short(good(f)), "row 4"),
    Case("numbers as rows", lambda f: [1, 2, 3], "row 0 is int"),
    Case("a list of None", lambda f: [None, None], "row 0 is NoneType"),
    Case("a string among dicts", lambda f: [*good(f)[:BAD], "text"], f"row {BAD}.*is str"),
    Case("a dict among strings", lambda f: ["a", "b", {"text": "c"}], f"row {BAD} is dict"),
    Case("None among dicts", lambda f: [*good(f)[:BAD], None], f"row {BAD}.*is NoneType"),
    Case("tuples as rows", lambda f: [("a", "b")], "row 0 is tuple"),
    Case("bytes as rows", lambda f: [b"abc"], "row 0 is bytes"),
]
COLUMNS = [
    Case("a misspelt column", renamed, "rename_column"),
    Case("a column that one row lacks", one_row_lacks, f"row {BAD}"),
    Case("rows without columns", lambda f: [{}, {}], "no known data format"),
    Case("unknown columns", lambda f: [{"a": "b"}], "no known data format"),
    Case("columns that are numbers", lambda f: [{0: "a", 1: "b"}], "column"),
    Case(
        "columns in capitals",
        lambda f: [{k.title(): v for k, v in r.items()} for r in good(f)],
        "rename_column",
    ),
    Case(
        "two columns that could be the prompt",
        lambda f: [{"question": "a", "query": "b", "instruction": "c"}],
        "ambiguous|More than one|no known data format",
    ),
    Case("pictures", column("images", ["a.png"]), "images", families=("language", "pairs", "unpaired")),
    Case(
        "a column that occurs twice but for its capitals",
        lambda f: Dataset.from_list(good(f)).add_column("Text", ["a"] * 4),
        None,
    ),
]
VALUES = [
    Case("None", value(None), f"row {BAD}.*NoneType"),
    Case("a whole number", value(7), f"row {BAD}.*found int 7"),
    Case("NaN", value(float("nan")), f"row {BAD}.*found float nan"),
    Case("a truth value", value(True), f"row {BAD}.*found bool True"),
    Case("bytes", value(b"abc"), f"row {BAD}.*found bytes"),
    Case("a dict in place of a text", value({"text": "abc"}), f"row {BAD}.*found dict"),
    Case("a list of strings", value(["a", "b"]), f"row {BAD}.*found list"),
    Case("a list of numbers", value([1, 2]), f"row {BAD}.*found list"),
    Case("a list of lists", value([["a"]]), f"row {BAD}.*found list"),
    Case("an empty list in place of a text", value([]), f"row {BAD}.*found list"),
    Case("half a surrogate pair", value("good \ud83d price"), f"row {BAD}.*surrogate"),
    Case(
        "a conversation as JSON text",
        value('[{"role": "user", "content": "hi"}]'),
        f"row {BAD}.*json.loads",
        families=("language", "pairs", "prompts"),
    ),
    Case("None everywhere", everywhere(None), "row 0.*NoneType"),
    Case("nothing but empty texts", everywhere(""), "none of the 4 rows", families=("language", "prompts")),
]
HANDLED = [
    Case("an empty text", value(""), None, lost=1, families=("language", "prompts")),
    Case("an empty answer: its end is learned", value(""), None, families=("pairs", "unpaired")),
    Case("white space", value("  \n\t "), None),
    Case("zero-width text", value("\u200b\u200d\ufeff"), None),
    Case(
        "right-to-left text",
        value("\u202e\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627\u202c"),
        None,
    ),
    Case("control characters", value("a\x00b\x1b[31mc\x7f"), None),
    Case(
        "letters of many parts", value("e\u0301\u0301\u0301 \U0001f469\u200d\U0001f469\u200d\U0001f467"), None
    ),
    Case("special tokens in a text", value("a </s> b <pad> c <s>"), None),
    Case("a huge row", value("the price " * 20_000), None, lost=1, cut=True),
]
