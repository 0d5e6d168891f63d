"""Data: every accepted format to prepared rows and a report; prepared rows to records."""

from .chat import turn_end_ids
from .collate import collate_pairs, collate_tokens, tokens_from_labels
from .prepare import prepare_language_modeling, prepare_pairs, prepare_prompts
from .prompts import epoch_order, prompt_indices
from .report import DataReport
from .tokenize import tokens_of_row

__all__ = [
    "DataReport",
    "collate_pairs",
    "collate_tokens",
    "epoch_order",
    "prepare_language_modeling",
    "prepare_pairs",
    "prepare_prompts",
    "prompt_indices",
    "tokens_from_labels",
    "tokens_of_row",
    "turn_end_ids",
]
