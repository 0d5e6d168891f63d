"""`from trellis.trainer.kto_config import …`: names of `trellis` under the path that existing scripts use."""

from ..trainers.kto import KTOConfig

__all__ = ["KTOConfig"]
