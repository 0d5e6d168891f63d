"""Every config field that TRL 0.4 to 0.29 or transformers 4 had and that is none today: one table per class.

The constructors read them when they meet one, `trellis migrate` when it rewrites a script, `docs/migrate.md` shows them.
This module knows no torch.
"""

from __future__ import annotations

import os
from typing import Any

from .old_names import Old, needless, refused, renamed

T4 = "transformers 4"
_OFF = (None, False)
_AMP = "mixed precision has one implementation now; choose it with bf16 or fp16"
_FSDP = 'write fsdp_config={"%s": …}'
_CHUNKS = "log-probabilities are always computed in chunks, and only where they are needed"
_TRUNK = "the trunk is found by itself"
_LENGTHS = "what is trained is known from lengths, not from ids"
_PADDING = "rows are filled up with the tokenizer's padding token; set that"
_ONE_SEQUENCE = "models that read and write one sequence are trained here"


def _ratio(value: Any) -> float:
    if not 0 <= float(value) < 1:
        raise ValueError(f"warmup_ratio must be at least 0 and below 1, found {value}")
    return float(value)


def _sampling(value: Any) -> str:
    return "group_by_length" if value else "random"


def _optimizer(value: Any) -> str:
    return "adafactor" if value else "adamw_torch_fused"


def _organization(value: Any) -> str:
    raise ValueError(f'write hub_model_id="{value}/NAME"')


def _inputs(value: Any) -> list[str]:
    return ["inputs"] if value else []


def _tensorboard(value: Any) -> Any:
    if value is not None:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(value)
    return None


def _estimator(kind: Any) -> str:
    if kind != "kl":
        raise ValueError("only 'kl' has a counterpart, kl_estimator='k1'")
    return "k1"


def _trackers(value: Any) -> Any:
    return value or "none"


def _trusting(value: Any) -> dict[str, bool]:
    return {"trust_remote_code": bool(value)}


HF_OLD_NAMES: dict[str, Old] = {
    "warmup_ratio": renamed("warmup_steps", _ratio, until=T4, source="{}"),
    "no_cuda": renamed("use_cpu", until=T4),
    "group_by_length": renamed(
        "train_sampling_strategy", _sampling, until=T4, source='"group_by_length" if {} else "random"'
    ),
    "evaluation_strategy": renamed("eval_strategy", until=T4),
    "adafactor": renamed("optim", _optimizer, until=T4, source='"adafactor" if {} else "adamw_torch_fused"'),
    "per_gpu_train_batch_size": renamed("per_device_train_batch_size", until=T4),
    "per_gpu_eval_batch_size": renamed("per_device_eval_batch_size", until=T4),
    "push_to_hub_model_id": renamed("hub_model_id", until=T4),
    "push_to_hub_token": renamed("hub_token", until=T4),
    "push_to_hub_organization": renamed("hub_model_id", _organization, until=T4),
    "torchdynamo": renamed("torch_compile_backend", until=T4),
    "include_inputs_for_metrics": renamed("include_for_metrics", _inputs, until=T4),
    "include_tokens_per_second": refused('write include_num_input_tokens_seen="all"', _OFF, until=T4),
    "logging_dir": Old(
        convert=_tensorboard, why="TENSORBOARD_LOGGING_DIR was set to it for TensorBoard", until=T4
    ),
    "overwrite_output_dir": needless("a run continues an old one only with resume_from_checkpoint", until=T4),
    "use_mps_device": needless("the machine's accelerator is found by itself", until=T4),
    "save_safetensors": refused("weights are always written as safetensors", (True, None), until=T4),
    "jit_mode_eval": refused("write torch_compile=True", _OFF, until=T4),
    "use_legacy_prediction_loop": refused("there is one evaluation loop", _OFF, until=T4),
    "use_ipex": refused("torch computes on these machines by itself", _OFF, until=T4),
    "dispatch_batches": refused('write accelerator_config={"dispatch_batches": …}', until=T4),
    "split_batches": refused('write accelerator_config={"split_batches": …}', until=T4),
    "fp16_opt_level": refused(_AMP, (None, "O1"), until=T4),
    "fp16_backend": refused(_AMP, (None, "auto", "amp", "cuda_amp"), until=T4),
    "half_precision_backend": refused(_AMP, (None, "auto", "amp", "cuda_amp", "cpu_amp"), until=T4),
    "tpu_num_cores": refused("start the processes with a launcher", until=T4),
    "tpu_metrics_debug": refused('write debug="tpu_metrics_debug"', _OFF, until=T4),
    "past_index": refused("models keep no past between batches", (None, -1), until=T4),
    "fsdp_min_num_params": refused(_FSDP % "min_num_params", (None, 0), until=T4),
    "fsdp_transformer_layer_cls_to_wrap": refused(_FSDP % "transformer_layer_cls_to_wrap", until=T4),
    "mp_parameters": refused("SageMaker model parallelism is gone", (None, ""), until=T4),
    "ray_scope": refused("pass the scope to hyperparameter_search", (None, "last"), until=T4),
}

_LANGUAGE_MODEL: dict[str, Old] = {
    "use_liger_loss": needless(_CHUNKS, until="0.26"),
    "base_model_attribute_name": needless(_TRUNK, until="0.26"),
    "label_pad_token_id": refused(_LENGTHS, (None, -100), until="0.26"),
    "padding_value": refused(_PADDING, until="0.29"),
    "is_encoder_decoder": refused(_ONE_SEQUENCE, _OFF, until="0.29"),
    "max_target_length": renamed("max_completion_length", until="0.9"),
    "use_num_logits_to_keep": needless(_CHUNKS, until="0.13"),
    "use_logits_to_keep": needless(_CHUNKS, until="0.26"),
}

SFT: dict[str, Old] = {
    "max_seq_length": renamed("max_length", until="0.15"),
    "use_liger": renamed("use_liger_kernel", until="0.15"),
    "num_of_sequences": needless("rows are packed exactly, without a buffer to fill", until="0.19"),
    "chars_per_token": needless("rows are packed by their tokens, not by an estimate of them", until="0.19"),
    "dataset_batch_size": needless("rows are tokenized in batches that suit by themselves", until="0.19"),
    "infinite": refused("write max_steps=… and a data set that is long enough", _OFF, until="0.8"),
    "trust_remote_code": renamed(
        "model_init_kwargs", _trusting, until="1.x", source='{{"trust_remote_code": {}}}'
    ),
}

DPO: dict[str, Old] = {
    **_LANGUAGE_MODEL,
    "label_pad_token_id": needless(_LENGTHS, until="0.26"),
}

_BCO = "it belongs to loss_type='bco', which is not trained here"

KTO: dict[str, Old] = {
    **_LANGUAGE_MODEL,
    "prompt_sample_size": refused(_BCO, (None, 1024), until="0.10"),
    "min_density_ratio": refused(_BCO, (None, 0.5), until="0.10"),
    "max_density_ratio": refused(_BCO, (None, 10.0), until="0.10"),
}

PAIRWISE: dict[str, Old] = _LANGUAGE_MODEL

_PROMPTS = "the engine in this process reads a group's prompt once, and rows leave as they finish"
_IN_SERVER = "it belongs to the process that serves: trellis vllm-serve"

GROUP: dict[str, Old] = {
    "use_liger_loss": needless(_CHUNKS, until="0.26"),
    "wandb_log_unique_prompts": renamed("log_unique_prompts", until="0.26"),
    "vllm_guided_decoding_regex": renamed("vllm_structured_outputs_regex", until="0.26"),
    "vllm_max_model_len": renamed("vllm_max_model_length", until="0.17"),
    "vllm_device": refused(
        "write vllm_mode='server' and start trellis vllm-serve on that device, or vllm_mode='colocate'",
        (None, "auto"),
        until="0.17",
    ),
    "vllm_dtype": refused(_IN_SERVER + " --dtype …", (None, "auto"), until="0.17"),
    "vllm_enable_prefix_caching": needless(
        "a group's prompt is read once, and vLLM keeps it by itself", until="0.17"
    ),
    "cache_implementation": needless(_PROMPTS, until="1.x"),
    "use_transformers_paged": needless(_PROMPTS, until="0.29"),
    "use_transformers_continuous_batching": needless(_PROMPTS, until="1.x"),
    "transformers_continuous_batching_config": needless(_PROMPTS, until="1.x"),
    "log_multimodal": needless("prompts hold no images here", until="1.x"),
    "log_completions_hub_repo": refused("upload the folder completions of output_dir yourself", until="1.x"),
}

_CAP = renamed("vllm_importance_sampling_clip_max", until="0.29")
GRPO: dict[str, Old] = {"vllm_importance_sampling_cap": _CAP}

_ELSEWHERE = "paths are the script's own: pass %s to the trainer"
_PENALTY = "subtract it in a reward function (completion_ids shows which completions ended)"
_WRITTEN = "it was an output of the trainer; leave it out"

_SIZES = "num_total_batches micro_batch_size local_batch_size batch_size local_mini_batch_size mini_batch_size world_size".split()

RLOO: dict[str, Old] = {
    "rloo_k": renamed("num_generations", until="0.21"),
    "kl_coef": renamed("beta", until="0.21"),
    "cliprange": renamed("epsilon", until="0.21"),
    "num_ppo_epochs": renamed("num_iterations", until="0.21"),
    "normalize_advantage": renamed("normalize_advantages", until="0.21"),
    "response_length": renamed("max_completion_length", until="0.21"),
    "exp_name": renamed("run_name", until="0.21"),
    "local_rollout_forward_batch_size": needless(
        "per_device_train_batch_size rows are sampled and scored at once", until="0.21"
    ),
    "num_sample_generations": refused("write log_completions=True", (None, 0, 10), until="0.21"),
    "sanity_check": refused("write max_steps=…", _OFF, until="0.11"),
    "stop_token": refused(
        "every end token that the model knows ends a completion", (None, "eos"), until="0.21"
    ),
    "stop_token_id": refused("set eos_token_id in model.generation_config", until="0.21"),
    "truncate_token": refused(
        "every end token that the model knows ends a completion", (None, "eos"), until="0.9"
    ),
    "truncate_token_id": refused("set eos_token_id in model.generation_config", until="0.9"),
    "missing_eos_penalty": refused(_PENALTY, until="0.21"),
    "non_eos_penalty": refused(_PENALTY, _OFF, until="0.10"),
    "penalty_reward_value": refused(_PENALTY, (None, -1), until="0.10"),
    "normalize_reward": refused(
        "write normalize_advantages=True, or scale in a reward function", _OFF, until="0.21"
    ),
    "whiten_rewards": refused("write normalize_advantages=True", _OFF, until="0.21"),
    "token_level_kl": refused(
        "the KL of a completion is one number, its sum over tokens", _OFF, until="0.21"
    ),
    "num_mini_batches": refused(
        "write steps_per_generation = num_mini_batches × gradient_accumulation_steps", (None, 1), until="0.21"
    ),
    "total_episodes": refused("write num_train_epochs=… or max_steps=… (optimizer steps)", until="0.21"),
    "sft_model_path": refused(_ELSEWHERE % "model=…", (None, "EleutherAI/pythia-160m"), until="0.21"),
    "reward_model_path": refused(
        _ELSEWHERE % "reward_funcs=…", (None, "EleutherAI/pythia-160m"), until="0.21"
    ),
    **dict.fromkeys(_SIZES, refused(_WRITTEN, until="0.21")),
}

_ROWS = "rows are per_device_train_batch_size × gradient_accumulation_steps × ranks per rollout, cut into num_mini_batches"
_TRACKER = "trackers read their own environment variables, such as WANDB_PROJECT; write report_to=…"

PPO: dict[str, Old] = {
    "model_name": refused("pass model='…' to PPOTrainer", until="0.11"),
    "reward_model": refused("pass reward_model='…' to PPOTrainer", until="0.11"),
    "query_dataset": refused("pass train_dataset=… to PPOTrainer", until="0.11"),
    "ppo_epochs": renamed("num_ppo_epochs", until="0.11"),
    "init_kl_coef": renamed("kl_coef", until="0.11"),
    "horizon": renamed("kl_horizon", until="0.11"),
    "target": renamed("kl_target", until="0.11"),
    "adap_kl_ctrl": refused(
        "write kl_target=6.0 for an adaptive coefficient, nothing for a constant one", _OFF, until="0.11"
    ),
    "kl_penalty": renamed("kl_estimator", _estimator, until="0.11"),
    "early_stopping": refused("write early_stop_kl=…", _OFF, until="0.11"),
    "target_kl": refused("write early_stop_kl=… (compared with policy/approxkl_avg)", until="0.11"),
    "score_clip": renamed("reward_clip", until="0.11"),
    "use_score_scaling": refused("write reward_scale=… or whiten_rewards=True", _OFF, until="0.11"),
    "use_score_norm": refused("write whiten_rewards=True", _OFF, until="0.11"),
    "ratio_threshold": refused("early_stop_kl=… leaves a rollout whose updates are too large", until="0.11"),
    "non_eos_penalty": refused("write missing_eos_penalty=1.0 (how much is subtracted)", _OFF, until="0.10"),
    "penalty_reward_value": refused(
        "write missing_eos_penalty=… (how much is subtracted)", (None, -1), until="0.10"
    ),
    "truncate_token": renamed("stop_token", until="0.9"),
    "truncate_token_id": renamed("stop_token_id", until="0.9"),
    "sanity_check": refused("write max_steps=…", _OFF, until="0.11"),
    "base_model": renamed("sft_model_path", until="0.9"),
    "forward_batch_size": renamed("local_rollout_forward_batch_size", until="0.6"),
    "backward_batch_size": refused(_ROWS, until="0.11"),
    "global_backward_batch_size": refused(_ROWS, until="0.11"),
    "global_batch_size": refused(_ROWS, until="0.11"),
    "steps": refused("write total_episodes=… (completions) or max_steps=… (optimizer steps)", until="0.11"),
    "log_with": renamed("report_to", _trackers, until="0.11", source='{} or "none"'),
    "task_name": renamed("run_name", until="0.11"),
    "tracker_project_name": needless(_TRACKER, until="0.11"),
    "tracker_kwargs": refused(_TRACKER, (None, {}), until="0.11"),
    "accelerator_kwargs": refused("write accelerator_config=…", (None, {}), until="0.11"),
    "project_kwargs": refused("write output_dir=…", (None, {}), until="0.11"),
    "push_to_hub_if_best_kwargs": refused(
        "write push_to_hub=True, hub_model_id=… and load_best_model_at_end=True", (None, {}), until="0.11"
    ),
    "compare_steps": needless("metric_for_best_model compares at each evaluation", until="0.11"),
    "world_size": refused(_WRITTEN, until="0.29"),
    "optimize_cuda_cache": needless("nothing is cached between steps", until="0.11"),
    "optimize_device_cache": needless("nothing is cached between steps", until="0.11"),
    "is_encoder_decoder": refused(_ONE_SEQUENCE, _OFF, until="0.11"),
    "is_peft_model": needless("it is found out", until="0.11"),
}

MODEL: dict[str, Old] = {
    "torch_dtype": renamed("dtype", until="0.24"),
    "use_bnb_nested_quantization": renamed("use_bnb_nested_quant", until="0.7"),
}
SCRIPT: dict[str, Old] = {
    "gradient_checkpointing_use_reentrant": refused(
        "write --gradient_checkpointing_kwargs '{\"use_reentrant\": true}'", _OFF, until="0.26"
    ),
    "ignore_bias_buffers": refused("models keep no such buffers any more", _OFF, until="0.29"),
    "dataset_train_name": renamed("dataset_train_split", until="0.9"),
    "dataset_test_name": renamed("dataset_test_split", until="0.9"),
    "sanity_check": refused("write max_steps=…", _OFF, until="0.10"),
}

FIELDS: dict[str, dict[str, Old]] = {
    "SFTConfig": {**HF_OLD_NAMES, **SFT},
    "RewardConfig": HF_OLD_NAMES,
    "DPOConfig": {**HF_OLD_NAMES, **DPO},
    "KTOConfig": {**HF_OLD_NAMES, **KTO},
    "ORPOConfig": {**HF_OLD_NAMES, **PAIRWISE},
    "CPOConfig": {**HF_OLD_NAMES, **PAIRWISE},
    "PPOConfig": {**HF_OLD_NAMES, **PPO},
    "RLOOConfig": {**HF_OLD_NAMES, **GROUP, **RLOO},
    "GRPOConfig": {**HF_OLD_NAMES, **GROUP, **GRPO},
    "ModelConfig": MODEL,
    "ScriptArguments": SCRIPT,
}
"""By today's class: what it understands besides its fields."""
