"""`from trellis.models.modeling_base import …`: names of `trellis` under the path that existing scripts use."""

from ..models import PreTrainedModelWrapper, create_reference_model

__all__ = ["PreTrainedModelWrapper", "create_reference_model"]
