"""Inherited arguments that nothing would read are refused, with what to write instead."""

from __future__ import annotations

import pytest

from trellis.trainers.ppo import PPOConfig
from trellis.trainers.sft import SFTConfig


@pytest.mark.parametrize(
    ("config", "name", "value"),
    [
        (SFTConfig, "label_smoothing_factor", 0.1),
        (SFTConfig, "torch_compile", True),
        (SFTConfig, "auto_find_batch_size", True),
        (PPOConfig, "label_smoothing_factor", 0.1),
        (PPOConfig, "neftune_noise_alpha", 5.0),
        (PPOConfig, "train_sampling_strategy", "sequential"),
    ],
)
def test_what_nothing_reads_is_refused(tmp_path, config, name: str, value) -> None:
    with pytest.raises(ValueError, match=f"{name}={value!r} would do nothing in {config.__name__}: ."):
        config(output_dir=str(tmp_path), **{name: value})


def test_defaults_and_what_is_read_pass(tmp_path) -> None:
    SFTConfig(output_dir=str(tmp_path), neftune_noise_alpha=5.0, train_sampling_strategy="sequential")
    PPOConfig(output_dir=str(tmp_path), train_sampling_strategy="random")
