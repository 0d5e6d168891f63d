"""The settings of direct preference optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..data.prepare import check_lengths, check_limit
from ..losses.divergence import DIVERGENCES
from ..losses.preference import Objective, bind
from .config import TrellisConfig, config, option
from .old_fields import DPO
from .old_names import Old


@config
class DPOConfig(TrellisConfig):
    """Direct preference optimisation. Losses, each with its paper: docs/dpo.md."""

    renamed: ClassVar[Mapping[str, str | Old]] = DPO

    learning_rate: float = option(1e-6, "Peak learning rate of AdamW.")
    model_init_kwargs: dict[str, Any] | str | None = option(
        None, "Keyword arguments of from_pretrained, where the model is given by name."
    )
    ref_model_init_kwargs: dict[str, Any] | str | None = option(
        None, "The same for ref_model, where that is given by name."
    )
    model_adapter_name: str | None = option(None, "The adapter to train, where the model has several.")
    ref_adapter_name: str | None = option(None, "The adapter that is the reference.")
    force_use_ref_model: bool = option(
        False, "Take ref_model as the reference although the policy has an adapter."
    )
    disable_dropout: bool = option(True, "Set every dropout of policy and reference to 0.")
    dataset_num_proc: int | None = option(None, "Processes that tokenize the data.")
    pad_token: str | None = option(None, "The token that fills rows up; default: the tokenizer's.")
    max_prompt_length: int | None = option(
        512, "A prompt with more tokens loses its beginning (counted); None: no limit."
    )
    max_completion_length: int | None = option(
        None, "An answer with more tokens loses its end (counted); None: no limit."
    )
    max_length: int | None = option(1024, "Tokens of a prompt with its longer answer; None: no limit.")
    truncation_mode: str = option(
        "keep_end",
        "Which part of a pair over max_length is kept: keep_end cuts the beginning of the prompt, the same for both answers; "
        "keep_start the end of the answers.",
        choices=("keep_end", "keep_start"),
    )
    padding_free: bool = option(False, "Always run the rows of a batch without padding (layout='packed').")
    pad_to_multiple_of: int | None = option(None, "Round the width of a batch up to a multiple of this.")
    precompute_ref_log_probs: bool = option(
        False, "Score the data with the reference once, before training, kept in output_dir for the next run."
    )
    precompute_ref_batch_size: int | None = option(
        None, "Pairs per forward pass of that; default: the per-device batch size."
    )
    tools: list[Any] | None = option(None, "Tools of conversations that bring none.")
    loss_type: list[str] = option(["sigmoid"], "One or more losses, added up with loss_weights.")
    loss_weights: list[float] | None = option(None, "One weight per loss; default: 1 each.")
    loss_kwargs: dict[str, Any] | str | None = option(
        None, "Further arguments of the losses by name, for losses that were added."
    )
    beta: float = option(0.1, "How strongly the policy is held near its reference.")
    label_smoothing: float = option(0.0, "Share of labels taken to be wrong, from 0 to below 0.5.")
    f_divergence_type: str = option(
        "reverse_kl", "The divergence that holds the policy near its reference.", choices=tuple(DIVERGENCES)
    )
    f_alpha_divergence_coef: float = option(1.0, "α of (1 − u^−α)/α: near 0 is reverse KL, 1 forward KL.")
    reference_free: bool = option(False, "Leave the reference out (log π_ref = 0).")
    discopop_tau: float = option(0.05, "Temperature of discopop's gate, above 0 and at most 1.")
    use_weighting: bool = option(
        False,
        "Weight each pair by how likely the policy would write it (WPO); one more pass without gradient.",
    )
    rpo_alpha: float | None = option(
        None, "Weight of the chosen answer's −log π per token, added to the loss (RPO); None: off."
    )
    ld_alpha: float | None = option(
        None, "Weight, from 0 to 1, of the tokens that only the longer answer has (LD-DPO); None: off."
    )
    sync_ref_model: bool = option(False, "Let the reference follow the policy (TR-DPO).")
    ref_model_mixup_alpha: float = option(
        0.6, "The policy's share when the reference follows: α·policy + (1 − α)·reference."
    )
    ref_model_sync_steps: int = option(512, "Optimizer steps between two times that it follows.")
    generate_during_eval: bool = option(
        False, "Show a table of what policy and reference write after each evaluation."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.loss_type, str):
            self.loss_type = [self.loss_type]
        check_lengths(self.max_length, self.truncation_mode)
        check_limit("max_prompt_length", self.max_prompt_length)
        check_limit("max_completion_length", self.max_completion_length)
        check_limit("precompute_ref_batch_size", self.precompute_ref_batch_size)
        check_limit("ref_model_sync_steps", self.ref_model_sync_steps)
        self._check_ranges()
        self._check_reference()
        self.objective()
        if self.padding_free:
            if self.layout == "padded":
                raise ValueError(
                    "padding_free=True and layout='padded' contradict each other; leave one of them out"
                )
            self.layout = "packed"

    def _check_ranges(self) -> None:
        expected = {
            "beta": (self.beta > 0, "above 0"),
            "label_smoothing": (0 <= self.label_smoothing < 0.5, "from 0 to below 0.5"),
            "discopop_tau": (0 < self.discopop_tau <= 1, "above 0 and at most 1"),
            "rpo_alpha": (self.rpo_alpha is None or self.rpo_alpha >= 0, "0 or more, or None"),
            "ld_alpha": (self.ld_alpha is None or 0 <= self.ld_alpha <= 1, "from 0 to 1, or None"),
            "ref_model_mixup_alpha": (0 < self.ref_model_mixup_alpha <= 1, "above 0 and at most 1"),
        }
        for name, (fine, words) in expected.items():
            if not fine:
                raise ValueError(f"{name}={getattr(self, name)}: expected {words}")

    def _check_reference(self) -> None:
        for off in ("precompute_ref_log_probs", "sync_ref_model", "ref_adapter_name", "force_use_ref_model"):
            if self.reference_free and getattr(self, off):
                raise ValueError(
                    f"reference_free=True uses no reference, so {off}={getattr(self, off)!r} has nothing to do; leave one of "
                    "them out"
                )
        if self.precompute_ref_log_probs and self.sync_ref_model:
            raise ValueError(
                "sync_ref_model=True moves the reference while training, so its log-probs cannot be computed before; write "
                "precompute_ref_log_probs=False"
            )

    def objective(self) -> Objective:
        """The losses with their arguments bound. Raises ValueError for what does not fit together."""
        extra: Any = self.loss_kwargs
        return bind(self.loss_type, self.loss_weights, vars(self), extra, divergence=self.f_divergence_type)
