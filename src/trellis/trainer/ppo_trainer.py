"""`from trellis.trainer.ppo_trainer import …`: names of `trellis` under the path that existing scripts use."""

from ..trainers.ppo import PPOTrainer

__all__ = ["PPOTrainer"]
