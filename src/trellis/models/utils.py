"""`from trellis.models.utils import …`: names of `trellis` under the path that existing scripts use."""

from ..models.for_generation import unwrap_model_for_generation
from ..models.recomputing import disable_gradient_checkpointing
from ..trainers.clone_template import clone_chat_template

__all__ = ["clone_chat_template", "disable_gradient_checkpointing", "unwrap_model_for_generation"]
