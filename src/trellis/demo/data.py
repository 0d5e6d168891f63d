"""The demo's rows: phrases that ship with the package, split so that the judge's are used for nothing else."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

JUDGE_ROWS = 4800


def read(name: str) -> list[dict[str, Any]]:
    """The rows of a shipped file, such as `phrases.train`."""
    path = files("trellis") / "assets" / "reviews" / f"{name}.jsonl.gz"
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


@dataclass(frozen=True)
class DemoData:
    """Who gets which rows. texts, held_out: phrases for SFT; pairs, pairs_test: liked against disliked phrases for the reward
    model; prompts, prompts_test: first words, for PPO and for measuring; judge, judge_test: labelled phrases."""

    texts: list[dict[str, str]]
    held_out: list[dict[str, str]]
    pairs: list[dict[str, str]]
    pairs_test: list[dict[str, str]]
    prompts: list[dict[str, str]]
    prompts_test: list[dict[str, str]]
    judge: list[dict[str, Any]]
    judge_test: list[dict[str, Any]]


def load() -> DemoData:
    """The shipped rows, shared out."""
    rows, test = read("phrases.train"), read("phrases.test")
    train, judge = rows[:-JUDGE_ROWS], rows[-JUDGE_ROWS:]
    liked, disliked = ([r["text"] for r in train if r["label"] == label] for label in (1, 0))
    return DemoData(
        texts=[{"text": r["text"]} for r in train],
        held_out=[{"text": r["text"]} for r in test[:400]],
        pairs=[{"chosen": c, "rejected": r} for c, r in zip(liked, disliked, strict=False)],
        pairs_test=read("phrase_pairs.test"),
        prompts=read("phrase_prompts.train"),
        prompts_test=read("phrase_prompts.test"),
        judge=judge,
        judge_test=test,
    )


def named_sets() -> dict[str, dict[str, list[dict[str, Any]]]]:
    """{name: {split: rows}}: the shipped rows in the shape of each kind of data. In "thumbs" a phrase without its first two words
    completes them, and was liked or not."""
    demo, rows, test = load(), read("phrases.train"), read("phrases.test")
    return {
        "texts": {"train": demo.texts, "test": demo.held_out},
        "thumbs": {"train": [_labelled(row) for row in rows], "test": [_labelled(row) for row in test]},
        "pairs": {"train": demo.pairs, "test": demo.pairs_test},
        "prompts": {"train": demo.prompts, "test": demo.prompts_test},
    }


def _labelled(row: dict[str, Any]) -> dict[str, Any]:
    words = row["text"].split(" ", 2)
    completion = " " + words[2] if len(words) > 2 else ""
    return {"prompt": " ".join(words[:2]), "completion": completion, "label": bool(row["label"])}
