"""`from trellis.models.modeling_value_head import …`: names of `trellis` under the path that existing scripts use."""

from ..models import AutoModelForCausalLMWithValueHead, AutoModelForSeq2SeqLMWithValueHead

__all__ = ["AutoModelForCausalLMWithValueHead", "AutoModelForSeq2SeqLMWithValueHead"]
