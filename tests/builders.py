"""Tiny tokenizers and models, built here and nowhere downloaded."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)
from transformers.models.auto import AutoModelForCausalLM, AutoModelForSequenceClassification

TEXT = """the battery lasts all day and the picture is very good . it is easy to use and the price is great .
the screen is small , the sound is bad and it does not work at all . i would buy this player again .
what is the answer ? the answer is four , because two and two are four . write a short line about the sea ."""

CHAT_TEMPLATE = """{%- if tools %}<|im_start|>system
{{ tools | tojson }}<|im_end|>
{% endif %}
{%- if preamble is defined %}<|im_start|>system
{{ preamble }}<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}
{% else %}{{ message['content'] }}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

SPECIAL = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]


@cache
def _backend(add_bos: bool) -> str:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXT.splitlines(), trainer)
    if add_bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return backend.to_str()


def tiny_tokenizer(
    *, pad_is_eos: bool = False, add_bos: bool = False, chat: bool = True
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most 320 tokens: any text survives a round trip.

    `<s>`, `</s>` and `<pad>` (or pad == eos) and, with `chat`, a template that closes turns with `<|im_end|>`
    and marks what the assistant says; `add_bos` writes `<s>` in front of every text, as Llama does.
    """
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_backend(add_bos)),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>" if pad_is_eos else "<pad>",
        extra_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=512,
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _shape(**changes: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        # Large enough that the logits of a random model differ from each other and that caps and scales bite.
        "initializer_range": 0.1,
        **changes,
    }


KINDS: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, _shape(num_key_value_heads=2)),
    "qwen2": (Qwen2Config, _shape(num_key_value_heads=2)),
    "mistral": (MistralConfig, _shape(num_key_value_heads=2, sliding_window=8)),
    "gpt2": (
        GPT2Config,
        {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 512,
            "initializer_range": 0.1,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        },
    ),
    "gpt_neox": (GPTNeoXConfig, _shape()),
    "gemma2": (
        Gemma2Config,
        _shape(
            num_key_value_heads=2,
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=8,
            final_logit_softcapping=2.0,
            attn_logit_softcapping=5.0,
        ),
    ),
    "cohere": (CohereConfig, _shape(num_key_value_heads=2, logit_scale=0.25)),
    "granite": (GraniteConfig, _shape(num_key_value_heads=2, logits_scaling=4.0, residual_multiplier=0.5)),
}


def _config(kind: str, tokenizer: PreTrainedTokenizerFast, changes: dict[str, Any]) -> PreTrainedConfig:
    config_class, shape = KINDS[kind]
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return config_class(**{"vocab_size": len(tokenizer), **tokens, **shape, **changes})


def tiny_model(
    kind: str = "llama", tokenizer: PreTrainedTokenizerFast | None = None, seed: int = 0, **config: Any
) -> PreTrainedModel:
    """A random causal language model of one of `KINDS`: two layers, no dropout, float32, eval mode.

    `config` overrides the configuration; the same seed gives the same weights, and the global random state is
    left alone.
    """
    config = _config(kind, tokenizer or tiny_tokenizer(), config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config).float().eval()


def tiny_classifier(
    kind: str = "llama", tokenizer: PreTrainedTokenizerFast | None = None, seed: int = 0, **config: Any
) -> PreTrainedModel:
    """A random sequence classifier with one label, otherwise as `tiny_model`."""
    config = _config(kind, tokenizer or tiny_tokenizer(), {"num_labels": 1, **config})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForSequenceClassification.from_config(config).float().eval()


def recompute_activations(model: Any) -> None:
    """Switch gradient checkpointing on, under the name that this transformers has for it."""
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    next(getattr(model, name) for name in names if hasattr(model, name))({"use_reentrant": False})
