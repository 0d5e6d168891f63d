"""`from trellis.trainer.rloo_config import …`: names of `trellis` under the path that existing scripts use."""

from ..trainers.rloo import RLOOConfig

__all__ = ["RLOOConfig"]
