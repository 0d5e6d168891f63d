"""How much two texts have in common, by their words: no model is asked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

WORD = re.compile(r"[a-z0-9]+")


def common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = row
        row = [0]
        for j, y in enumerate(b):
            row.append(before[j] + 1 if x == y else max(before[j + 1], row[j]))
    return row[-1]


def rouge_l(text: str, references: Iterable[str]) -> float:
    """The best F1 of the longest common subsequence of words with one of the references (Lin 2004)."""
    words = WORD.findall(text.lower())
    best = 0.0
    for reference in references:
        other = WORD.findall(reference.lower())
        shared = common(words, other)
        best = max(best, 2 * shared / max(1, len(words) + len(other)))
    return best


def distinct_bigrams(texts: Iterable[str]) -> float:
    """Distinct pairs of neighbouring words over all of them."""
    found = [pair for text in texts for pair in pairwise(text.split())]
    return len(set(found)) / max(1, len(found))
