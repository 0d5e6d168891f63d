"""The study's rows: abstracts and one-sentence summaries, shortened; the judge's are used for nothing else."""

from __future__ import annotations

import gzip
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent / "data"
SENTENCE = re.compile(r"(?<=[.!?])\s+")
OF_THE_AUTHORS = re.compile(r"\bwe\b|\bthis (?:paper|work)\b")
ASK = "\ntl;dr:"


@dataclass(frozen=True)
class Paper:
    """One paper in lower case. text: the whole abstract; prompt: its words that a model gets, and the question; summary: what the
    authors wrote, with a space before it; references: all its summaries."""

    text: str
    prompt: str
    summary: str
    references: tuple[str, ...]


def shortened(abstract: str, words: int) -> str:
    """The first `words` words of the sentences in which authors speak of themselves (of all, where there are none)."""
    sentences = SENTENCE.split(abstract)
    chosen = [sentence for sentence in sentences if OF_THE_AUTHORS.search(sentence)] or sentences
    return " ".join(" ".join(chosen).split()[:words])


def read(split: str, words: int, longest: int) -> list[Paper]:
    """The papers of a split whose own summary has at most `longest` words."""
    lines = gzip.decompress((HERE / f"scitldr.{split}.jsonl.gz").read_bytes()).decode().splitlines()
    papers = []
    for row in map(json.loads, lines):
        text, summaries = row["abstract"].lower(), [s.lower() for s in row["summaries"]]
        if len(summaries[0].split()) <= longest:
            prompt = shortened(text, words) + ASK
            papers.append(Paper(text, prompt, f" {summaries[0]}", tuple(summaries)))
    return papers


@dataclass(frozen=True)
class Papers:
    """Who gets which papers. policy: everything but the judge; judge: the judge alone; test: nobody, they are for measuring."""

    policy: list[Paper]
    judge: list[Paper]
    test: list[Paper]


def share_out(seed: int, *, words: int, longest: int, judge_share: float, rows: int | None = None) -> Papers:
    """The papers in an order that depends on the seed; `rows` takes so many of each split only."""
    train, test = read("train", words, longest), read("test", words, longest)
    random.Random(f"share {seed}").shuffle(train)
    train, test = train[:rows], test[:rows]
    held = round(judge_share * len(train))
    return Papers(train[held:], train[:held], test)
