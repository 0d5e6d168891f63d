"""What a policy writes about the test papers, and what is to be said of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from .overlap import distinct_bigrams, rouge_l
from .papers import Paper
from .sizes import Size
from .writing import log_ratios, marks, write

ROWS = "rows.jsonl"
COOLER = 0.5
"""A control: the SFT policy, sampled at this temperature, is nearer to its own most likely answers without any training."""


def measure(
    folder: Path,
    model: Path,
    home: Path,
    papers: Sequence[Paper],
    size: Size,
    seed: int,
    temperature: float = 1.0,
) -> dict[str, Any]:
    """One summary of each paper, in rows.jsonl with its marks; returns means. kl: to the SFT policy, at temperature 1."""
    written = write(
        model, [p.prompt for p in papers], length=size.response, seed=seed + 99, temperature=temperature
    )
    ended = [c.finish_reason == "stop" for c in written.found]
    rows = _rows(home, papers, written.texts, ended)
    for row, completion in zip(rows, written.found, strict=True):
        row["tokens"] = len(completion.ids)
    numbers = _keep(folder, rows)
    if temperature == 1.0:
        numbers["kl"] = fmean(log_ratios(model, home / "sft", written))
    return numbers


def measure_references(folder: Path, home: Path, papers: Sequence[Paper]) -> dict[str, Any]:
    """The same of the authors' summaries; their overlap is with the other summaries of their paper."""
    rows = _rows(home, papers, [p.summary for p in papers], [True] * len(papers))
    for row, paper in zip(rows, papers, strict=True):
        row["overlap"] = rouge_l(paper.summary, paper.references[1:])
    return _keep(folder, rows)


def _rows(
    home: Path, papers: Sequence[Paper], texts: Sequence[str], ended: Sequence[bool]
) -> list[dict[str, Any]]:
    """A row per paper. reward: the reward model's score, of a summary that has ended or not as that was in training; judge: the
    judge's, who reads the text alone; overlap, foreign: ROUGE-L with the paper's summaries and with the next paper's."""
    prompts = [paper.prompt for paper in papers]
    reward = marks(home / "reward", prompts, texts, ended)
    judge = marks(home / "judge", prompts, texts, [True] * len(texts))
    return [
        {
            "prompt": paper.prompt,
            "text": text,
            "reference": paper.summary,
            "ended": end,
            "reward": reward[i],
            "judge": judge[i],
            "words": len(text.split()),
            "overlap": rouge_l(text, paper.references),
            "foreign": rouge_l(text, papers[(i + 1) % len(papers)].references),
        }
        for i, (paper, text, end) in enumerate(zip(papers, texts, ended, strict=True))
    ]


def _keep(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ROWS).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    names = [name for name, value in rows[0].items() if isinstance(value, int | float)]
    means = {name: fmean(float(row[name]) for row in rows) for name in names}
    return means | {"distinct": distinct_bigrams(row["text"] for row in rows)}


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows that `measure` left."""
    return [json.loads(line) for line in (folder / ROWS).read_text().splitlines()]
