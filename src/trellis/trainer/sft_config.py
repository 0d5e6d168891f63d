"""`from trellis.trainer.sft_config import …`: names of `trellis` under the path that existing scripts use."""

from ..trainers.sft import SFTConfig

__all__ = ["SFTConfig"]
