"""What models say about tokens: the only place that shifts by one, projects the vocabulary or knows a layout."""

from .counters import Work, counting
from .inside import inside
from .other_answers import score_with_others
from .plan import layouts_of, plan_for
from .scores import in_chunks, score, sequence_scores, token_values

__all__ = [
    "Work",
    "counting",
    "in_chunks",
    "inside",
    "layouts_of",
    "plan_for",
    "score",
    "score_with_others",
    "sequence_scores",
    "token_values",
]
