"""`from trellis.experimental.ppo import …`: the classes of `trellis` under a second path."""

from ..trainers.ppo import PPOConfig, PPOTrainer

__all__ = ["PPOConfig", "PPOTrainer"]
