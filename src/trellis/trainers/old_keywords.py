"""Every constructor argument that TRL 0.4 to 0.29 had and that no trainer has today: renamed, gone, or a field of the config now.

As `old_fields`, it is read by the constructors, by `trellis migrate` and by `docs/migrate.md`, and knows no torch.
"""

from __future__ import annotations

from .old_names import Old, needless, refused, renamed

_MODEL = refused("pass the model itself, or its name, as model=…", until="0.19")
_COMMON: dict[str, Old] = {
    "tokenizer": renamed("processing_class", until="0.15"),
    "model_init": _MODEL,
    "feature_extractor": refused("prompts hold no images here", until="0.11"),
    "max_steps": refused("it is a field of the config; write args=…Config(max_steps=…)", until="0.7"),
}
_LM: dict[str, Old] = {
    **_COMMON,
    "padding_value": refused("rows are filled up with the tokenizer's padding token; set that", until="0.12"),
    "is_encoder_decoder": refused(
        "models that read and write one sequence are trained here", (None, False), until="0.12"
    ),
}
_ONLINE: dict[str, Old] = {
    "tokenizer": renamed("processing_class", until="0.12"),
    "config": renamed("args", until="0.13"),
    "dataset": renamed("train_dataset", until="0.11"),
    "policy": renamed("model", until="0.14"),
    "ref_policy": renamed("ref_model", until="0.14"),
}
_OPTIMIZERS = "write optimizers=(optimizer, lr_scheduler), or learning_rate=… and optim=… in the config"

DATASET_KWARGS = {
    "add_special_tokens": needless("a template's special tokens are never added twice", until="0.19"),
    "append_concat_token": needless("texts end in the end token once, packed or not", until="0.19"),
}
"""What SFTConfig(dataset_kwargs=…) held besides skip_prepare_dataset."""

ARGUMENTS: dict[str, dict[str, Old]] = {
    "SFTTrainer": {
        **_COMMON,
        "infinite": refused(
            "write max_steps=… in the config, and give data that is long enough", (None, False), until="0.9"
        ),
        "num_of_sequences": needless("rows are packed exactly, without a buffer to fill", until="0.12"),
        "chars_per_token": needless(
            "rows are packed by their tokens, not by an estimate of them", until="0.12"
        ),
        "dataset_batch_size": needless("rows are tokenized in batches that suit by themselves", until="0.12"),
    },
    "RewardTrainer": dict(_COMMON),
    "DPOTrainer": dict(_LM),
    "KTOTrainer": {
        **_LM,
        "embedding_func": refused("it belongs to loss_type='bco', which is not trained here", until="0.10"),
        "embedding_tokenizer": refused(
            "it belongs to loss_type='bco', which is not trained here", until="0.10"
        ),
    },
    "ORPOTrainer": dict(_LM),
    "CPOTrainer": dict(_LM),
    "PPOTrainer": {
        "policy": renamed("model", until="0.14"),
        "ref_policy": renamed("ref_model", until="0.14"),
        "optimizer": refused(_OPTIMIZERS, until="0.11"),
        "lr_scheduler": refused(_OPTIMIZERS, until="0.11"),
        "num_shared_layers": refused(
            "leave ref_model out: a frozen copy of the whole policy is kept", until="0.11"
        ),
        "training_data_collator": refused(
            "nothing is padded before it is scored; leave it out", until="0.11"
        ),
        "model_init": _MODEL,
    },
    "RLOOTrainer": {
        **_ONLINE,
        "reward_model": renamed("reward_funcs", until="0.21"),
        "data_collator": refused(
            "nothing is padded before sampling; give prompts as texts, chats or input_ids", until="0.21"
        ),
        "model_init": _MODEL,
    },
    "GRPOTrainer": {"tokenizer": renamed("processing_class", until="0.13"), "model_init": _MODEL},
}
"""By trainer: arguments under another name, or gone."""

_PAIRS = ("beta", "label_smoothing", "loss_type", "max_length", "max_prompt_length", "max_target_length")
_READING = (
    "label_pad_token_id",
    "truncation_mode",
    "disable_dropout",
    "generate_during_eval",
    "dataset_num_proc",
)
_REFERENCE = ("precompute_ref_log_probs", "model_init_kwargs", "ref_model_init_kwargs")
_ADAPTERS = ("model_adapter_name", "ref_adapter_name", "reference_free", "force_use_ref_model")
_FREE = (
    "beta",
    "loss_type",
    "max_length",
    "max_prompt_length",
    "max_completion_length",
    "label_pad_token_id",
)

MOVED: dict[str, tuple[str, ...]] = {
    "SFTTrainer": (
        *("max_seq_length", "dataset_text_field", "packing", "eval_packing", "dataset_num_proc"),
        *("dataset_kwargs", "model_init_kwargs", "neftune_noise_alpha"),
    ),
    "RewardTrainer": ("max_length", "dataset_num_proc"),
    "DPOTrainer": (*_PAIRS, *_READING, *_REFERENCE, *_ADAPTERS, "rpo_alpha", "sync_ref_model"),
    "KTOTrainer": (
        *("beta", "loss_type", "desirable_weight", "undesirable_weight", "max_length", "max_prompt_length"),
        *("max_completion_length", *_READING, *_REFERENCE),
    ),
    "ORPOTrainer": tuple(n for n in (*_FREE, *_READING[1:], "model_init_kwargs") if n != "loss_type"),
    "CPOTrainer": (*_FREE, "label_smoothing", *_READING[1:], "model_init_kwargs"),
    "PPOTrainer": (),
    "RLOOTrainer": (),
    "GRPOTrainer": (),
}
"""By trainer: arguments that are fields of its config now."""
