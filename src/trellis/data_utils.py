"""`from trellis.data_utils import …`: names of `trellis` under the path that existing scripts use."""

from .data.conversations import (
    apply_chat_template,
    is_conversational,
    is_conversational_from_value,
    maybe_apply_chat_template,
    maybe_convert_to_chatml,
    prepare_multimodal_messages,
)
from .data.whole_sets import (
    extract_prompt,
    maybe_extract_prompt,
    maybe_unpair_preference_dataset,
    pack_dataset,
    truncate_dataset,
    unpair_preference_dataset,
)

__all__ = [
    "apply_chat_template",
    "extract_prompt",
    "is_conversational",
    "is_conversational_from_value",
    "maybe_apply_chat_template",
    "maybe_convert_to_chatml",
    "maybe_extract_prompt",
    "maybe_unpair_preference_dataset",
    "pack_dataset",
    "prepare_multimodal_messages",
    "truncate_dataset",
    "unpair_preference_dataset",
]
