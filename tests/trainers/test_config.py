"""Configs follow the machine, understand old names, and refuse what cannot be done before any time is spent."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
from typing import Any, ClassVar

import pytest
import torch
from transformers import HfArgumentParser, TrainingArguments

from trellis.trainers.config import TrellisConfig, adopt, config, option
from trellis.trainers.old_fields import HF_OLD_NAMES
from trellis.trainers.old_names import refused, renamed

CPU_ONLY = not torch.accelerator.is_available()


@config
class Example(TrellisConfig):
    """A config with a field, an old name and a dict."""

    renamed: ClassVar[dict[str, Any]] = {
        "ppo_epochs": "num_ppo_epochs",
        "percent": renamed("share", lambda v: v / 100),
        "cuda_cache": refused("nothing is cached", (None, False)),
    }
    num_ppo_epochs: int = option(4, "Passes.")
    share: float = option(0.5, "A share.")
    kind: str = option("k1", "Which one.", choices=("k1", "k3"))
    sizes: list[int] = option([1, 2], "Some sizes.")
    model_init_kwargs: dict[str, Any] | str | None = option(None, "Keyword arguments.")


def test_defaults_fit_any_machine():
    made = Example()
    assert made.logging_steps == 10
    assert made.report_to == []
    assert made.logging_nan_inf_filter is False
    assert made.remove_unused_columns is False
    assert made.output_dir == "trainer_output"
    accelerated = not CPU_ONLY
    assert made.gradient_checkpointing is accelerated
    assert made.dataloader_pin_memory is accelerated
    assert made.bf16 in ((False,) if CPU_ONLY else (True, False))
    assert Example(use_cpu=True).bf16 is False


def test_what_the_machine_cannot_do_is_refused_with_the_way_out():
    if not CPU_ONLY:
        assert Example(fp16=True).bf16 is False
        return
    with pytest.raises(ValueError, match="Leave bf16 out .*use_cpu=True"):
        Example(bf16=True)
    with pytest.raises(ValueError, match="Leave fp16 out"):
        Example(fp16=True)
    assert Example(bf16=True, use_cpu=True).bf16 is True


def test_checkpointing_has_one_meaning_under_both_names():
    on = Example(gradient_checkpointing=True)
    assert on.gradient_checkpointing is True
    assert on.gradient_checkpointing_kwargs == {"use_reentrant": False}
    if hasattr(on, "activation_checkpointing"):
        assert on.activation_checkpointing is True
        assert on.activation_checkpointing_kwargs == {"use_reentrant": False}
        with pytest.raises(ValueError, match="one switch"):
            Example(gradient_checkpointing=True, activation_checkpointing=False)
    kept = Example(gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": True})
    assert kept.gradient_checkpointing_kwargs == {"use_reentrant": True}


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ({"warmup_ratio": 0.1}, "warmup_steps", 0.1),
        ({"no_cuda": True}, "use_cpu", True),
        ({"group_by_length": True}, "train_sampling_strategy", "group_by_length"),
        ({"evaluation_strategy": "no"}, "eval_strategy", "no"),
        ({"adafactor": True}, "optim", "adafactor"),
        ({"per_gpu_train_batch_size": 3}, "per_device_train_batch_size", 3),
        ({"push_to_hub_model_id": "a/b"}, "hub_model_id", "a/b"),
        ({"ppo_epochs": 2}, "num_ppo_epochs", 2),
        ({"percent": 25}, "share", 0.25),
    ],
)
def test_an_old_name_with_the_same_meaning_is_taken(old, new, value):
    with pytest.warns(FutureWarning, match=f"{next(iter(old))} is now {new}"):
        made = Example(**old)
    assert getattr(made, new) == value


@pytest.mark.parametrize(
    ("old", "says"),
    [
        ({"save_safetensors": False}, "always written as safetensors"),
        ({"warmup_ratio": 1.5}, "below 1"),
        ({"fp16_backend": "apex"}, "bf16 or fp16"),
        ({"push_to_hub_organization": "org"}, 'hub_model_id="org/NAME"'),
        ({"cuda_cache": True}, "nothing is cached"),
        ({"learning_rat": 1.0}, "did you mean 'learning_rate'"),
        ({"ppo_epoch": 1.0}, "did you mean 'ppo_epochs'|did you mean 'num_ppo_epochs'"),
        ({"ppo_epochs": 1, "num_ppo_epochs": 2}, "give only one"),
    ],
)
@pytest.mark.filterwarnings("ignore:.* is now:FutureWarning")
def test_what_has_no_counterpart_says_what_to_write(old, says):
    with pytest.raises(TypeError, match=says):
        Example(**old)


def test_values_that_never_did_anything_pass_in_silence():
    Example(save_safetensors=True, jit_mode_eval=False, fp16_opt_level="O1", past_index=-1, cuda_cache=False)


def test_what_is_no_longer_needed_is_said_once():
    with pytest.warns(FutureWarning, match="overwrite_output_dir is no longer needed"):
        Example(overwrite_output_dir=True)


def test_logging_dir_still_reaches_tensorboard():
    before = os.environ.get("TENSORBOARD_LOGGING_DIR")
    try:
        with pytest.warns(FutureWarning, match="TENSORBOARD_LOGGING_DIR"):
            Example(logging_dir="somewhere")
        assert os.environ["TENSORBOARD_LOGGING_DIR"] == "somewhere"
    finally:
        os.environ.pop("TENSORBOARD_LOGGING_DIR", None)
        if before is not None:
            os.environ["TENSORBOARD_LOGGING_DIR"] = before


def test_every_field_that_transformers_dropped_is_in_the_table():
    real = {f.name for f in dataclasses.fields(TrainingArguments)}
    dropped = """overwrite_output_dir per_gpu_train_batch_size per_gpu_eval_batch_size warmup_ratio logging_dir save_safetensors
    no_cuda use_mps_device jit_mode_eval fp16_opt_level half_precision_backend fp16_backend tpu_num_cores tpu_metrics_debug
    past_index fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap adafactor group_by_length use_legacy_prediction_loop
    include_inputs_for_metrics push_to_hub_model_id push_to_hub_organization push_to_hub_token mp_parameters torchdynamo
    ray_scope include_tokens_per_second"""
    assert set(dropped.split()) <= real | set(HF_OLD_NAMES)
    for entry in HF_OLD_NAMES.values():
        assert entry.new is None or entry.new in real


def test_a_value_outside_its_choices_is_refused():
    with pytest.raises(ValueError, match="kind='k2' is none of k1, k3"):
        Example(kind="k2")
    with pytest.raises(ValueError, match="did you mean 'padded'"):
        Example(layout="paded")


def test_dicts_may_be_json():
    assert Example(model_init_kwargs='{"dtype": "float32"}').model_init_kwargs == {"dtype": "float32"}
    with pytest.raises(ValueError, match="is not valid JSON"):
        Example(model_init_kwargs="{dtype: float32}")


def test_a_config_can_be_copied_pickled_and_replaced():
    made = Example(learning_rate=1.0, kind="k3")
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), dataclasses.replace(made)):
        assert other.to_dict() == made.to_dict()
    assert dataclasses.replace(made, num_ppo_epochs=7).num_ppo_epochs == 7
    assert made.sizes is not Example().sizes


def test_stock_parser_fills_it():
    words = "--num_ppo_epochs 3 --kind k3 --gradient_checkpointing --sizes 4 5 --use_cpu".split()
    made = HfArgumentParser((Example,)).parse_args_into_dataclasses(words)[0]
    assert (made.num_ppo_epochs, made.kind, made.gradient_checkpointing, made.sizes) == (
        3,
        "k3",
        True,
        [4, 5],
    )


def test_tokens_stay_out_of_its_text():
    assert "hf_secret" not in repr(Example(hub_token="hf_secret"))


def test_plain_training_arguments_are_adopted():
    plain = TrainingArguments(output_dir="x", learning_rate=0.5, use_cpu=True)
    made = adopt(plain, Example)
    assert isinstance(made, Example)
    assert (made.learning_rate, made.output_dir, made.remove_unused_columns) == (0.5, "x", False)
    with pytest.raises(TypeError, match="args must be .*Example"):
        adopt({"learning_rate": 1}, Example)
