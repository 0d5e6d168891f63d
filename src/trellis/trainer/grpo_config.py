"""`from trellis.trainer.grpo_config import …`: names of `trellis` under the path that existing scripts use."""

from ..trainers.grpo import GRPOConfig

__all__ = ["GRPOConfig"]
