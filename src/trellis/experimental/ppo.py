"""`from trellis.experimental.ppo import …`: the same classes as `trellis.PPOConfig` and `trellis.PPOTrainer`."""

from ..trainers.ppo import PPOConfig, PPOTrainer

__all__ = ["PPOConfig", "PPOTrainer"]
