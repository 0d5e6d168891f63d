"""`from trellis.trainer.dpo_config import …`: names of `trellis` under the path that existing scripts use."""

from ..losses.divergence import FDivergenceType
from ..trainers.dpo import DPOConfig

__all__ = ["DPOConfig", "FDivergenceType"]
