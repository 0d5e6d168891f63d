"""Every name that a release of TRL from 0.4 to 0.29 had: it works, or one error names what to write today."""

from __future__ import annotations

import dataclasses
import inspect
import warnings

import pytest

import trellis
from trellis.trainers.old_arguments import place
from trellis.trainers.old_fields import FIELDS, HF_OLD_NAMES
from trellis.trainers.old_keywords import ARGUMENTS, MOVED
from trellis.trainers.old_names import Old, old_names

TRAINERS = tuple(ARGUMENTS)
_LOOP = "args data_collator train_dataset eval_dataset tokenizer processing_class callbacks optimizers"
_LEARNS = f"model {_LOOP} model_init compute_metrics preprocess_logits_for_metrics peft_config"
_OLD_DPO = """beta label_smoothing loss_type label_pad_token_id padding_value truncation_mode max_length max_prompt_length
    max_target_length is_encoder_decoder disable_dropout generate_during_eval precompute_ref_log_probs dataset_num_proc
    model_init_kwargs ref_model_init_kwargs model_adapter_name ref_adapter_name reference_free force_use_ref_model"""
_SAMPLES = """args train_dataset eval_dataset processing_class callbacks optimizers model reward_funcs
    reward_processing_classes peft_config"""
CONSTRUCTORS = {
    "SFTTrainer": f"""{_LEARNS} dataset_text_field packing formatting_func max_seq_length infinite num_of_sequences
        chars_per_token dataset_num_proc dataset_batch_size neftune_noise_alpha model_init_kwargs dataset_kwargs eval_packing
        compute_loss_func optimizer_cls_and_kwargs""",
    "RewardTrainer": f"{_LEARNS} max_length optimizer_cls_and_kwargs",
    "DPOTrainer": f"{_LEARNS} ref_model {_OLD_DPO} feature_extractor optimizer_cls_and_kwargs",
    "KTOTrainer": f"{_LEARNS} ref_model model_adapter_name ref_adapter_name embedding_func embedding_tokenizer",
    "ORPOTrainer": _LEARNS,
    "CPOTrainer": _LEARNS,
    "PPOTrainer": """config args model ref_model tokenizer processing_class dataset train_dataset eval_dataset optimizer
        optimizers lr_scheduler data_collator training_data_collator num_shared_layers policy ref_policy reward_model value_model
        callbacks peft_config""",
    "RLOOTrainer": f"""config tokenizer policy ref_policy ref_model reward_model data_collator {_SAMPLES}""",
    "GRPOTrainer": f"{_SAMPLES} tools rollout_func environment_factory",
}
"""Arguments of TRL's constructors over the releases, by trainer."""

_ON_POLICY = """sanity_check num_mini_batches total_episodes local_rollout_forward_batch_size num_sample_generations
    response_length stop_token stop_token_id truncate_token truncate_token_id temperature missing_eos_penalty non_eos_penalty
    penalty_reward_value sft_model_path num_total_batches micro_batch_size local_batch_size batch_size local_mini_batch_size
    mini_batch_size run_name world_size exp_name reward_model_path num_ppo_epochs whiten_rewards kl_coef cliprange"""
_PAIRS = """max_length max_prompt_length max_completion_length max_target_length beta label_pad_token_id padding_value
    truncation_mode generate_during_eval is_encoder_decoder disable_dropout model_init_kwargs dataset_num_proc"""
_GROUP = """model_init_kwargs disable_dropout num_generations num_generations_eval max_completion_length max_prompt_length
    ds3_gather_for_generation shuffle_dataset generation_batch_size steps_per_generation temperature top_p top_k min_p
    generation_kwargs chat_template_kwargs repetition_penalty use_transformers_paged cache_implementation use_vllm vllm_mode
    vllm_model_impl vllm_enable_sleep_mode vllm_guided_decoding_regex vllm_server_base_url vllm_server_host vllm_server_port
    vllm_server_timeout vllm_gpu_memory_utilization vllm_max_model_length vllm_tensor_parallel_size beta num_iterations epsilon
    epsilon_high reward_weights mask_truncated_completions sync_ref_model ref_model_mixup_alpha ref_model_sync_steps
    use_liger_loss log_completions num_completions_to_print log_unique_prompts wandb_log_unique_prompts vllm_device vllm_dtype
    vllm_max_model_len vllm_enable_prefix_caching learning_rate remove_unused_columns"""
_CLASSIC = """exp_name seed log_with task_name model_name query_dataset reward_model remove_unused_columns tracker_kwargs
    accelerator_kwargs project_kwargs tracker_project_name push_to_hub_if_best_kwargs steps learning_rate adap_kl_ctrl
    init_kl_coef kl_penalty target horizon gamma lam cliprange cliprange_value vf_coef batch_size forward_batch_size
    mini_batch_size gradient_accumulation_steps world_size ppo_epochs max_grad_norm early_stopping target_kl compare_steps
    ratio_threshold use_score_scaling use_score_norm score_clip whiten_rewards gradient_checkpointing is_encoder_decoder
    is_peft_model backward_batch_size global_backward_batch_size global_batch_size optimize_cuda_cache optimize_device_cache
    dataset_num_proc"""
CONFIGS = {
    "SFTConfig": """dataset_text_field packing max_seq_length max_length dataset_num_proc dataset_batch_size
        neftune_noise_alpha model_init_kwargs dataset_kwargs eval_packing num_of_sequences chars_per_token use_liger
        use_liger_kernel chat_template_path eos_token pad_token shuffle_dataset packing_strategy padding_free
        pad_to_multiple_of completion_only_loss assistant_only_loss loss_type learning_rate""",
    "RewardConfig": """max_length dataset_num_proc center_rewards_coefficient disable_dropout remove_unused_columns
        model_init_kwargs chat_template_path eos_token pad_token pad_to_multiple_of""",
    "DPOConfig": f"""{_PAIRS} label_smoothing loss_type precompute_ref_log_probs precompute_ref_batch_size
        ref_model_init_kwargs model_adapter_name ref_adapter_name reference_free force_use_ref_model f_divergence_type
        f_alpha_divergence_coef sync_ref_model ref_model_mixup_alpha ref_model_sync_steps rpo_alpha use_num_logits_to_keep
        use_logits_to_keep use_liger_loss tools base_model_attribute_name ld_alpha discopop_tau use_weighting loss_weights
        padding_free pad_token""",
    "KTOConfig": f"""{_PAIRS} loss_type desirable_weight undesirable_weight precompute_ref_log_probs ref_model_init_kwargs
        use_liger_loss base_model_attribute_name prompt_sample_size min_density_ratio max_density_ratio""",
    "ORPOConfig": _PAIRS,
    "CPOConfig": f"{_PAIRS} label_smoothing loss_type cpo_alpha simpo_gamma alpha",
    "PPOConfig": f"""{_CLASSIC} {_ON_POLICY} base_model kl_estimator model_adapter_name ref_adapter_name
        ds3_gather_for_generation""",
    "RLOOConfig": f"""{_ON_POLICY} {_GROUP} rloo_k normalize_reward reward_clip_range normalize_advantage token_level_kl
        normalize_advantages""",
    "GRPOConfig": f"""{_GROUP} delta sapo_temperature_neg sapo_temperature_pos importance_sampling_level scale_rewards
        loss_type top_entropy_quantile vllm_importance_sampling_correction vllm_importance_sampling_mode
        vllm_importance_sampling_cap use_bias_correction_kl""",
    "ModelConfig": """model_name_or_path model_revision torch_dtype dtype trust_remote_code attn_implementation use_peft lora_r
        lora_alpha lora_dropout lora_target_modules lora_modules_to_save lora_task_type use_rslora use_dora load_in_8bit
        load_in_4bit bnb_4bit_quant_type use_bnb_nested_quant""",
    "ScriptArguments": """dataset_name dataset_config dataset_train_split dataset_test_split dataset_streaming
        gradient_checkpointing_use_reentrant ignore_bias_buffers""",
}
"""Fields of TRL's configs over the releases, by class."""

SAMPLES = {
    "vllm_guided_decoding_regex": None,
    "vllm_max_model_len": None,
    "warmup_ratio": 0.1,
    "log_with": None,
    "kl_penalty": "kl",
    "target": 6.0,
}
"""Values that an old name may have, where 1 is none."""


def config_of(trainer: str) -> type:
    return getattr(trellis, trainer.replace("Trainer", "Config"))


@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_constructor_argument_of_the_past_has_an_answer(trainer):
    now = set(inspect.signature(getattr(trellis, trainer)).parameters)
    known = now | set(ARGUMENTS[trainer]) | set(MOVED[trainer])
    assert set(CONSTRUCTORS[trainer].split()) - known == set()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_field_of_the_past_has_an_answer(name):
    cls = getattr(trellis, name)
    now = {f.name for f in dataclasses.fields(cls) if f.init}
    assert set(CONFIGS[name].split()) - now - set(old_names(cls)) == set()
    if name.endswith("Config") and name != "ModelConfig":
        assert set(HF_OLD_NAMES) <= now | set(old_names(cls))


@pytest.mark.parametrize("name", FIELDS)
def test_the_table_is_what_the_class_understands(name):
    cls = getattr(trellis, name)
    now = {f.name for f in dataclasses.fields(cls) if f.init}
    assert {old: e for old, e in FIELDS[name].items() if old not in now} == old_names(cls)
    assert {e.new for e in old_names(cls).values() if e.new} <= now


OLD = [
    pytest.param(name, old, entry, id=f"{name}-{old}")
    for name in FIELDS
    for old, entry in old_names(getattr(trellis, name)).items()
    if old not in HF_OLD_NAMES or name == "SFTConfig"
]


def made(cls: type, **fields):
    return (
        cls(**fields) if cls.__name__ in ("ModelConfig", "ScriptArguments") else cls(use_cpu=True, **fields)
    )


@pytest.mark.parametrize(("name", "old", "entry"), OLD)
def test_an_old_field_works_or_names_its_replacement(name, old, entry: Old):
    cls = getattr(trellis, name)
    if entry.harmless is not None:
        for value in entry.harmless:
            made(cls, **{old: value})
        with pytest.raises(TypeError) as error:
            made(cls, **{old: "something else"})
        assert old in str(error.value)
        assert entry.why in str(error.value)
        return
    if old == "push_to_hub_organization":
        with pytest.raises(TypeError, match="hub_model_id="):
            made(cls, **{old: "acme"})
        return
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        result = made(cls, **{old: SAMPLES.get(old, DEFAULT.get(entry.new, True))})
    said = [str(n.message) for n in notes if n.category is FutureWarning]
    assert any(old in line and (entry.new or entry.why) in line for line in said)
    assert entry.new is None or hasattr(result, entry.new)


DEFAULT = {
    "num_generations": 4,
    "use_cpu": True,
    "model_init_kwargs": True,
    "eval_strategy": "no",
    "torch_compile_backend": None,
    "hub_token": "t",
    "hub_model_id": "acme/m",
    "stop_token": "eos",
    "dtype": "float32",
    "run_name": "a run",
    "sft_model_path": "m",
    "dataset_train_split": "train",
    "dataset_test_split": "test",
    "use_liger_kernel": False,
    "epsilon": 0.2,
    "beta": 0.1,
}

PLACES = [(t, old) for t in TRAINERS for old in (*ARGUMENTS[t], *MOVED[t])]


@pytest.mark.parametrize(("trainer", "old"), PLACES, ids=[f"{t}-{n}" for t, n in PLACES])
def test_an_old_argument_works_or_names_its_replacement(trainer, old):
    cls, config, value = getattr(trellis, trainer), config_of(trainer), object()
    given = {"self": object.__new__(cls)}
    entry = ARGUMENTS[trainer].get(old)
    parameters = set(inspect.signature(cls).parameters)
    assert old not in parameters
    if entry is None:
        fields = {f.name for f in dataclasses.fields(config)}
        new = old if old in fields else (old_names(config)[old].new or old)
        assert new in fields or not old_names(config)[old].new
        usual = getattr(config(use_cpu=True), new, None)
        with pytest.warns(
            FutureWarning, match=f"{old} is now a field of its config; write args={config.__name__}"
        ):
            place(trainer, config, {old: usual}, given)
        assert isinstance(given["args"], config)
    elif entry.harmless is not None:
        with pytest.raises(TypeError) as error:
            place(trainer, config, {old: value}, given)
        assert entry.why in str(error.value)
        place(trainer, config, dict.fromkeys([old], entry.harmless[0]), given)
    else:
        with pytest.warns(FutureWarning, match=entry.new or "no longer needed"):
            place(trainer, config, {old: value}, given)
        assert entry.new is None or (entry.new in parameters and given[entry.new] is value)


def test_what_dataset_kwargs_held_is_taken_and_said():
    given = {"add_special_tokens": False, "append_concat_token": False, "skip_prepare_dataset": True}
    with pytest.warns(FutureWarning, match="no longer needed"):
        config = trellis.SFTConfig(use_cpu=True, dataset_kwargs=given)
    assert config.dataset_kwargs == {"skip_prepare_dataset": True}
    assert len(given) == 3


def test_no_tracker_is_asked_for_by_none():
    assert trellis.DPOConfig(use_cpu=True, report_to=None).report_to == []
