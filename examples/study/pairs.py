"""Pairs of a better and a worse summary. Nobody was asked: the better one is always the authors' own."""

from __future__ import annotations

import random
from collections.abc import Sequence

from .papers import Paper

KINDS = ("another paper's", "sampled", "shuffled")


def shuffled(summary: str, draw: random.Random) -> str:
    """The summary's words in another order, with its space in front."""
    words = summary.split()
    return " " + " ".join(draw.sample(words, len(words)))


def preference_pairs(
    papers: Sequence[Paper],
    sampled: Sequence[Sequence[str]],
    *,
    others: int,
    shuffles: int,
    seed: int,
) -> list[dict[str, str]]:
    """Rows of prompt, chosen, rejected and kind: against summaries of `others` other papers, against what the SFT model wrote for
    this one (`sampled`, any number per paper), and against its own words shuffled."""
    draw = random.Random(f"pairs {seed}")
    rows = []
    for i, (paper, answers) in enumerate(zip(papers, sampled, strict=True)):
        foreign = [papers[(i + draw.randrange(1, len(papers))) % len(papers)].summary for _ in range(others)]
        mixed = [shuffled(paper.summary, draw) for _ in range(shuffles)]
        for kind, rejected in zip(KINDS, (foreign, answers, mixed), strict=True):
            rows += [
                {"prompt": paper.prompt, "chosen": paper.summary, "rejected": text, "kind": kind}
                for text in rejected
                if text.strip() and text != paper.summary
            ]
    return rows
