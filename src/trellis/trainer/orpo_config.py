"""`from trellis.trainer.orpo_config import …`: names of `trellis` under the path that existing scripts use."""

from ..trainers.orpo import ORPOConfig

__all__ = ["ORPOConfig"]
