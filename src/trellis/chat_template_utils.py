"""`from trellis.chat_template_utils import …`: names of `trellis` under the path that existing scripts use."""

from .agents.response import add_response_schema, parse_response
from .data.training_template import get_training_chat_template, is_chat_template_prefix_preserving
from .trainers.clone_template import clone_chat_template

__all__ = [
    "add_response_schema",
    "clone_chat_template",
    "get_training_chat_template",
    "is_chat_template_prefix_preserving",
    "parse_response",
]
