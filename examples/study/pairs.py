"""Pairs of a better and a worse summary. Nobody was asked: the authors' own is better than any other, and of two that were
sampled the one that has more in common with the authors'."""

from __future__ import annotations

import random
from collections.abc import Sequence

from .overlap import rouge_l
from .papers import Paper

OTHER, SAMPLED, SHUFFLED, NEARER = "another paper's", "sampled", "shuffled", "the nearer of two sampled"
KINDS = (OTHER, SAMPLED, SHUFFLED, NEARER)


def shuffled(summary: str, draw: random.Random) -> str:
    """The summary's words in another order, with its space in front."""
    words = summary.split()
    return " " + " ".join(draw.sample(words, len(words)))


def nearer(paper: Paper, texts: Sequence[str]) -> list[tuple[str, str]]:
    """The texts two by two, the best with the worst and so on, by ROUGE-L with the paper's own summary; ties left out."""
    marks = sorted(((rouge_l(text, [paper.summary]), text) for text in texts), reverse=True)
    pairs = zip(marks[: len(marks) // 2], reversed(marks), strict=False)
    return [(better, worse) for (more, better), (less, worse) in pairs if more > less]


def preference_pairs(
    papers: Sequence[Paper],
    sampled: Sequence[Sequence[str]],
    *,
    others: int,
    against: int,
    shuffles: int,
    seed: int,
) -> list[dict[str, str]]:
    """Rows of prompt, chosen, rejected and kind. The paper's summary against those of `others` other papers, against the first
    `against` that the SFT model wrote for it (`sampled`), and against `shuffles` of its own in another order; and `nearer`."""
    draw = random.Random(f"pairs {seed}")
    rows = []
    for i, (paper, answers) in enumerate(zip(papers, sampled, strict=True)):
        own = paper.summary
        foreign = [papers[(i + draw.randrange(1, len(papers))) % len(papers)].summary for _ in range(others)]
        found = {
            OTHER: [(own, text) for text in foreign],
            SAMPLED: [(own, text) for text in answers[:against]],
            SHUFFLED: [(own, shuffled(own, draw)) for _ in range(shuffles)],
            NEARER: nearer(paper, answers),
        }
        rows += [
            {"prompt": paper.prompt, "chosen": better, "rejected": worse, "kind": kind}
            for kind, pairs in found.items()
            for better, worse in pairs
            if worse.strip() and worse != better
        ]
    return rows
