"""RLOOConfig: the fields of TRL 0.26's RLOO, with its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from .config import config, option
from .group_config import GroupConfig
from .old_fields import RLOO
from .old_names import Old


@config
class RLOOConfig(GroupConfig):
    """REINFORCE with a leave-one-out baseline."""

    renamed: ClassVar[Mapping[str, str | Old]] = RLOO

    max_prompt_length: int | None = option(
        512, "A prompt with more tokens loses its beginning (counted); None: no limit."
    )
    num_generations: int | None = option(2, "Completions per prompt.")
    beta: float = option(0.05, "Weight of the KL penalty in the reward; 0: no reference model is kept.")
    normalize_advantages: bool = option(False, "Centre and scale the advantages of a rollout.")
    reward_clip_range: list[float] | None = option(
        None, "Clip rewards, before the KL penalty, to (low, high)."
    )
    staleness_weight_max: float | None = option(
        3.0,
        "rollout_staleness: largest weight π_now/π_sampled of a completion; None: any.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.staleness_weight_max is not None and self.staleness_weight_max <= 0:
            raise ValueError(
                f"staleness_weight_max={self.staleness_weight_max}: expected a number above 0, or None"
            )
        clip = self.reward_clip_range
        if clip is not None and not (len(clip) == 2 and clip[0] < clip[1]):
            raise ValueError(
                f"reward_clip_range={clip}: expected two numbers, the lower first, such as (-1.0, 1.0)"
            )
