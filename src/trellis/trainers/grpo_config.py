"""GRPOConfig: the fields of TRL 0.26's GRPO, with its defaults, and what came after it (off by default)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..losses.group import GRPO_LOSSES, GroupObjective, bind_group_loss
from .config import config, option
from .group_config import GroupConfig
from .old_fields import GRPO
from .old_names import Old

_CORRECTIONS = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")


def _scale(value: Any) -> Any:
    """TRL once took True and False."""
    return {"True": "group", "true": "group", "False": "none", "false": "none"}.get(str(value), value)


@config
class GRPOConfig(GroupConfig):
    """Group relative policy optimisation. Losses, each with its paper: docs/losses.md."""

    renamed: ClassVar[Mapping[str, str | Old]] = GRPO

    loss_type: str = option("dapo", "How tokens' terms are made and averaged.", choices=tuple(GRPO_LOSSES))
    importance_sampling_level: str = option(
        "token", "A ratio per token, or one per completion (GSPO).", choices=("token", "sequence")
    )
    delta: float | None = option(
        None, "Upper bound of the ratio whatever the sign of the advantage (two-sided clip)."
    )
    sapo_temperature_pos: float = option(1.0, "sapo: temperature where the advantage is positive.")
    sapo_temperature_neg: float = option(1.05, "sapo: temperature where it is negative.")
    vespo_k_pos: float = option(2.0, "vespo: power of the sequence weight where the advantage is positive.")
    vespo_lambda_pos: float = option(3.0, "vespo: decay of the sequence weight where it is positive.")
    vespo_k_neg: float = option(3.0, "vespo: power where the advantage is negative.")
    vespo_lambda_neg: float = option(2.0, "vespo: decay where it is negative.")
    scale_rewards: str = option(
        "group",
        "Divide centred rewards by the standard deviation of their group, of the whole batch, or not at all.",
        choices=("group", "batch", "none"),
    )
    multi_objective_aggregation: str = option(
        "sum_then_normalize",
        "Several rewards: add them up and normalise, or normalise each in its group and add those up (GDPO).",
        choices=("sum_then_normalize", "normalize_then_sum"),
    )
    use_bias_correction_kl: bool = option(
        False, "Weight the KL term by the ratio, which makes its gradient unbiased off-policy."
    )
    top_entropy_quantile: float = option(
        1.0, "Train only this share of a rollout's tokens, those of highest entropy."
    )
    entropy_coef: float = option(
        0.0, "Weight of an entropy bonus; with use_adaptive_entropy, where it starts."
    )
    use_adaptive_entropy: bool = option(
        False,
        "Adapt the weight: up by entropy_coef_delta while the entropy is below entropy_target, down while above.",
    )
    entropy_coef_min: float = option(0.0, "Its lower bound.")
    entropy_coef_max: float = option(1.0, "Its upper bound.")
    entropy_coef_delta: float = option(0.005, "Its change per optimizer step.")
    entropy_target: float = option(0.2, "The entropy, in nats per token, that it holds.")
    off_policy_mask_threshold: float | None = option(
        None,
        "Leave out completions with a negative advantage that have become this much less likely, in nats per token.",
    )
    max_tool_calling_iterations: int | None = option(
        None, "Rounds of tool calls per completion; default: 10."
    )
    vllm_importance_sampling_correction: bool = option(
        True, "Weight tokens by the policy's probability over the engine's."
    )
    vllm_importance_sampling_mode: str = option(
        "sequence_mask",
        "Per token or completion; cut weights off or drop what exceeds them.",
        choices=_CORRECTIONS,
    )
    vllm_importance_sampling_clip_max: float | None = option(3.0, "Largest such weight; None: any.")
    vllm_importance_sampling_clip_min: float | None = option(None, "Smallest such weight; None: any.")

    def __post_init__(self) -> None:
        self.scale_rewards = _scale(self.scale_rewards)
        super().__post_init__()
        expected = {
            "importance_sampling_level": (
                self.importance_sampling_level == "token" or self.loss_type not in ("luspo", "vespo"),
                f"token, as loss_type={self.loss_type!r} always takes the ratio of the whole completion",
            ),
            "delta": (self.delta is None or self.delta > 1, "above 1, or None"),
            "top_entropy_quantile": (0 < self.top_entropy_quantile <= 1, "above 0 and at most 1"),
            "sapo_temperature_pos": (self.sapo_temperature_pos > 0, "above 0"),
            "sapo_temperature_neg": (self.sapo_temperature_neg > 0, "above 0"),
            "entropy_coef": (
                not self.use_adaptive_entropy
                or self.entropy_coef_min <= self.entropy_coef <= self.entropy_coef_max,
                f"from entropy_coef_min={self.entropy_coef_min} to entropy_coef_max={self.entropy_coef_max}",
            ),
            "max_tool_calling_iterations": (
                self.max_tool_calling_iterations is None or self.max_tool_calling_iterations > 0,
                "above 0, or None",
            ),
            "multi_objective_aggregation": (
                self.multi_objective_aggregation == "sum_then_normalize" or self.scale_rewards == "group",
                "sum_then_normalize, or scale_rewards='group': each reward is normalised in its group",
            ),
        }
        for name, (fine, words) in expected.items():
            if not fine:
                raise ValueError(f"{name}={getattr(self, name)}: expected {words}")
        self.objective()

    def objective(self) -> GroupObjective:
        """The loss with its arguments bound. Raises ValueError for what does not fit together."""
        return bind_group_loss(self.loss_type, vars(self))
