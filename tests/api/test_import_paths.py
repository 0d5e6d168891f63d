"""`trl` → `trellis` in an import line: what TRL's pages import is there, under the same path, and is one object."""

import importlib
import subprocess
import sys

import pytest

import trellis

CALLBACKS = "BEMACallback LogCompletionsCallback MergeModelCallback RichProgressCallback SyncRefModelCallback WinRateCallback"
JUDGES = "AllTrueJudge BaseBinaryJudge BaseJudge BasePairwiseJudge BaseRankJudge HfPairwiseJudge OpenAIPairwiseJudge PairRMJudge"
METHODS = ("sft", "dpo", "kto", "orpo", "cpo", "ppo", "grpo", "rloo", "reward")


def classes(method, *kinds):
    stem = "Reward" if method == "reward" else method.upper()
    return " ".join(stem + kind for kind in kinds)


PATHS = {
    "trellis": "apply_chat_template extract_prompt is_conversational is_conversational_from_value "
    "maybe_apply_chat_template maybe_convert_to_chatml maybe_extract_prompt maybe_unpair_preference_dataset pack_dataset "
    "prepare_multimodal_messages truncate_dataset unpair_preference_dataset AutoModelForCausalLMWithValueHead "
    "AutoModelForSeq2SeqLMWithValueHead PreTrainedModelWrapper clone_chat_template create_reference_model",
    "trellis.trainer": " ".join(classes(m, "Trainer", "Config") for m in METHODS)
    + f" ModelConfig FDivergenceType {CALLBACKS} {JUDGES}",
    **{f"trellis.trainer.{m}_trainer": classes(m, "Trainer") for m in METHODS},
    **{f"trellis.trainer.{m}_config": classes(m, "Config") for m in METHODS},
    **{f"trellis.experimental.{m}": classes(m, "Trainer", "Config") for m in ("ppo", "kto", "orpo", "cpo")},
    "trellis.trainer.sft_trainer": "SFTTrainer DataCollatorForLanguageModeling",
    "trellis.trainer.dpo_trainer": "DPOTrainer DataCollatorForPreference",
    "trellis.trainer.reward_trainer": "RewardTrainer DataCollatorForPreference",
    "trellis.trainer.callbacks": CALLBACKS,
    "trellis.trainer.judges": JUDGES,
    "trellis.experimental.judges": JUDGES,
    "trellis.experimental.winrate_callback": "WinRateCallback",
    "trellis.mergekit_utils": "MergeConfig merge_models",
    "trellis.experimental.merge_model_callback": "MergeConfig MergeModelCallback",
    "trellis.trainer.dpo_config": "DPOConfig FDivergenceType",
    "trellis.trainer.model_config": "ModelConfig",
    "trellis.trainer.utils": "get_kbit_device_map get_peft_config get_quantization_config disable_dropout_in_model pad",
    "trellis.data_utils": "apply_chat_template extract_prompt is_conversational is_conversational_from_value "
    "maybe_apply_chat_template maybe_convert_to_chatml maybe_extract_prompt maybe_unpair_preference_dataset pack_dataset "
    "prepare_multimodal_messages truncate_dataset unpair_preference_dataset",
    "trellis.chat_template_utils": "add_response_schema clone_chat_template get_training_chat_template "
    "is_chat_template_prefix_preserving parse_response",
    "trellis.models": "AutoModelForCausalLMWithValueHead AutoModelForSeq2SeqLMWithValueHead PreTrainedModelWrapper "
    "create_reference_model",
    "trellis.models.modeling_value_head": "AutoModelForCausalLMWithValueHead AutoModelForSeq2SeqLMWithValueHead",
    "trellis.models.modeling_base": "PreTrainedModelWrapper create_reference_model",
    "trellis.models.utils": "clone_chat_template disable_gradient_checkpointing unwrap_model_for_generation",
    "trellis.rewards": "accuracy_reward reasoning_accuracy_reward think_format_reward get_soft_overlong_punishment",
    "trellis.rewards.accuracy_rewards": "accuracy_reward reasoning_accuracy_reward",
    "trellis.rewards.format_rewards": "think_format_reward",
    "trellis.rewards.other_rewards": "get_soft_overlong_punishment get_cosine_scaled_reward get_repetition_penalty_reward",
    "trellis.scripts": "DatasetMixtureConfig ScriptArguments TrlParser get_dataset",
    "trellis.scripts.utils": "DatasetConfig DatasetMixtureConfig ScriptArguments TrlParser get_dataset",
    "trellis.import_utils": "is_deepspeed_available is_math_verify_available is_mergekit_available is_rich_available "
    "is_vllm_available",
}


@pytest.mark.parametrize("path", PATHS)
def test_the_names_of_a_path_are_there(path):
    module = importlib.import_module(path)
    for name in PATHS[path].split():
        assert callable(getattr(module, name)), name
        if name in trellis.__all__:
            assert getattr(module, name) is getattr(trellis, name)


def test_a_divergence_may_be_named_by_its_enumeration():
    from trellis.trainer.dpo_config import DPOConfig, FDivergenceType

    for kind in FDivergenceType:
        assert DPOConfig("out", use_cpu=True, f_divergence_type=kind).f_divergence_type == kind.value


def test_what_is_installed_is_found_without_importing_it():
    code = (
        "import sys; from trellis.import_utils import is_rich_available, is_weave_available as weave; "
        "assert is_rich_available() and not weave(); assert 'rich' not in sys.modules and 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
