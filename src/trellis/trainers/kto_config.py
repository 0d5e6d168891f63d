"""The settings of Kahneman-Tversky optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..data.prepare import check_lengths, check_limit
from ..losses.unpaired import UNPAIRED_LOSSES
from .config import TrellisConfig, config, option
from .old_fields import KTO
from .old_names import Old


@config
class KTOConfig(TrellisConfig):
    """Arguments of `KTOTrainer`."""

    renamed: ClassVar[Mapping[str, str | Old]] = KTO

    learning_rate: float = option(1e-6, "The initial learning rate.")
    model_init_kwargs: dict[str, Any] | str | None = option(
        None, "Arguments for from_pretrained where the model is a name; float32 unless they hold a dtype."
    )
    ref_model_init_kwargs: dict[str, Any] | str | None = option(
        None, "The same for ref_model, where that is given by name."
    )
    disable_dropout: bool = option(True, "Set every dropout of policy and reference to 0.")
    dataset_num_proc: int | None = option(None, "Processes that tokenize the data.")
    max_length: int | None = option(1024, "Tokens of a prompt and its answer; None: no limit.")
    max_prompt_length: int | None = option(512, "A longer prompt loses its beginning; None: no limit.")
    max_completion_length: int | None = option(None, "A longer answer loses its end; None: no limit.")
    truncation_mode: str = option(
        "keep_end",
        "Beyond max_length, keep_end takes from the prompt's beginning first, keep_start from the answer's end.",
        choices=("keep_end", "keep_start"),
    )
    loss_type: str = option(
        "kto",
        "kto: against the KL of the step; apo_zero_unpaired: against 0, which needs no mismatched answers.",
        choices=tuple(UNPAIRED_LOSSES),
    )
    beta: float = option(0.1, "How strongly the policy is held near its reference.")
    desirable_weight: float = option(1.0, "What an answer with label True counts for.")
    undesirable_weight: float = option(1.0, "What an answer with label False counts for.")
    precompute_ref_log_probs: bool = option(
        False, "Score the data with the reference once, before training, kept in output_dir for the next run."
    )
    precompute_ref_batch_size: int | None = option(
        None, "Rows per forward pass of that; default: the per-device batch size."
    )
    sync_ref_model: bool = option(False, "Let the reference follow the policy (TR-DPO).")
    ref_model_mixup_alpha: float = option(
        0.6, "The policy's share when the reference follows: α·policy + (1 − α)·reference."
    )
    ref_model_sync_steps: int = option(512, "Optimizer steps between two times that it follows.")
    generate_during_eval: bool = option(
        False, "Show a table of what policy and reference write after each evaluation."
    )
    pad_to_multiple_of: int | None = option(None, "Round the width of a batch up to a multiple of this.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_lengths(self.max_length, self.truncation_mode)
        for name in (
            "max_prompt_length",
            "max_completion_length",
            "precompute_ref_batch_size",
            "ref_model_sync_steps",
        ):
            check_limit(name, getattr(self, name))
        expected = {
            "beta": (self.beta > 0, "above 0"),
            "desirable_weight": (self.desirable_weight >= 0, "0 or more"),
            "undesirable_weight": (self.undesirable_weight >= 0, "0 or more"),
            "ref_model_mixup_alpha": (0 < self.ref_model_mixup_alpha <= 1, "above 0 and at most 1"),
        }
        for name, (fine, words) in expected.items():
            if not fine:
                raise ValueError(f"{name}={getattr(self, name)}: expected {words}")
        if self.precompute_ref_log_probs and self.sync_ref_model:
            raise ValueError(
                "sync_ref_model=True moves the reference while training, so its log-probs cannot be computed before; write "
                "precompute_ref_log_probs=False"
            )
