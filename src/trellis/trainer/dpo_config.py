"""`from trellis.trainer.dpo_config import …`: names of `trellis` under the path that existing scripts use."""

from ..trainers.dpo import DPOConfig

__all__ = ["DPOConfig"]
