"""`from trellis.trainer.grpo_trainer import …`: names of `trellis` under the path that existing scripts use."""

from ..trainers.grpo import GRPOTrainer

__all__ = ["GRPOTrainer"]
