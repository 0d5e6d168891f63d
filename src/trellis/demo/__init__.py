"""SFT → Reward → PPO on product-review phrases, from nothing to a policy that writes praise, in minutes on two cores."""

from .run import DemoResult, run_demo

__all__ = ["DemoResult", "run_demo"]
