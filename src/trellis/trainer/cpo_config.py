"""`from trellis.trainer.cpo_config import …`: names of `trellis` under the path that existing scripts use."""

from ..trainers.cpo import CPOConfig

__all__ = ["CPOConfig"]
