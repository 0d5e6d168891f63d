"""Models: loading them, adapting them, the frozen reference, and the critic."""

from .adapters import adapted_modules, add_adapter, is_peft
from .critic import ActorCritic, Apart
from .embeddings import fit_embeddings
from .export import merge_adapter
from .frozen_copy import create_reference_model
from .load import load_causal_lm, load_classifier, load_tokenizer
from .modules import (
    base_causal_lm,
    cache_name,
    classifier_head,
    disable_dropout,
    learned_positions,
    policy_of,
    shares_parameters,
    unwrap,
)
from .reference import Reference, choose_adapter
from .saved import check_saved
from .tokens import distinct_pad
from .value_head import (
    AutoModelForCausalLMWithValueHead,
    AutoModelForSeq2SeqLMWithValueHead,
    PreTrainedModelWrapper,
)
from .wide_head import widen_head

__all__ = [
    "ActorCritic",
    "Apart",
    "AutoModelForCausalLMWithValueHead",
    "AutoModelForSeq2SeqLMWithValueHead",
    "PreTrainedModelWrapper",
    "Reference",
    "adapted_modules",
    "add_adapter",
    "base_causal_lm",
    "cache_name",
    "check_saved",
    "choose_adapter",
    "classifier_head",
    "create_reference_model",
    "disable_dropout",
    "distinct_pad",
    "fit_embeddings",
    "is_peft",
    "learned_positions",
    "load_causal_lm",
    "load_classifier",
    "load_tokenizer",
    "merge_adapter",
    "policy_of",
    "shares_parameters",
    "unwrap",
    "widen_head",
]
