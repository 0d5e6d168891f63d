"""What of a model its memory and its time depend on, from its config alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FULL, HALF = 4, 2
"""Bytes of a number in float32, and in bfloat16."""
COMPOSED = ("gelu_new", "gelu_fast", "gelu_accurate", "quick_gelu")
"""Activation functions that are written out, so that autograd keeps every part of them."""


@dataclass(frozen=True)
class Shape:
    """What of a model its memory depends on.

    parameters: all of them; largest: those of its largest part that is gathered at once (a layer, or an embedding);
    embedding: of the one that words become vectors by; q, kv: the widths of all query and of all key heads;
    tied: the head is the embedding; gated: the feed-forward part has a gate; composed: its activation function is
    written out.
    """

    parameters: int
    largest: int
    embedding: int
    layers: int
    hidden: int
    intermediate: int
    q: int
    kv: int
    vocab: int
    gated: bool = True
    composed: bool = False
    tied: bool = False
    positions: int = 0

    @classmethod
    def of(cls, config: Any, *, classifier: bool = False) -> Shape:
        """The shape of the causal language model (or sequence classifier) that a transformers config describes; nothing is
        allocated."""
        return cls.of_model(empty_model(config, classifier=classifier))

    @classmethod
    def of_model(cls, model: Any) -> Shape:
        """The shape of a model, which may be on the meta device."""
        text = model.config.get_text_config()
        heads = text.num_attention_heads
        width = getattr(text, "head_dim", None) or text.hidden_size // heads
        names = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
        act = getattr(text, "hidden_act", None) or getattr(text, "activation_function", "")
        return cls(
            parameters=sum(p.numel() for p in model.parameters()),
            largest=max(sum(p.numel() for p in part.parameters()) for part in _parts(model)),
            embedding=model.get_input_embeddings().weight.numel(),
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            intermediate=_inner(text),
            q=heads * width,
            kv=(getattr(text, "num_key_value_heads", None) or heads) * width,
            vocab=text.vocab_size,
            gated=bool(names & {"gate_proj", "gate_up_proj"}),
            composed=act in COMPOSED,
            tied=bool(getattr(text, "tie_word_embeddings", False)),
            positions=getattr(text, "max_position_embeddings", 0) or 0,
        )

    def kept(self, *, adapter: bool, thrifty: bool = True, cast: bool = False, cpu: bool = True) -> int:
        """Numbers per token that a layer keeps for backward: counted on Llama's layers, where norms and gates keep their inputs
        alone and matrices compute a norm again, unless autocast has `cast` it (`scoring/thrift.py`), and on GPT-NeoX's and
        GPT-2's. With an adapter, inputs of fixed matrices are not kept. A CPU's attention keeps keys and values once for all
        heads, and its output once."""
        again = self.gated and thrifty and not cast
        normed = 0 if adapter or again else 2
        attention = 2 * (self.q + self.kv) if cpu else 5 * self.q
        return (1 + self.gated + normed) * self.hidden + attention + self.inner(thrifty, adapter)

    def inner(self, thrifty: bool, adapter: bool = False) -> int:
        """Numbers per token that the feed-forward part of a layer keeps inside."""
        if self.gated:
            return (2 if thrifty else 4) * self.intermediate
        return ((6 if self.composed else 2) - adapter) * self.intermediate

    @property
    def matrices(self) -> int:
        """Parameters that a token is multiplied by: all but the embedding, where the head does not share it."""
        return self.parameters - (0 if self.tied else self.embedding)

    @property
    def at_once(self) -> int:
        """Numbers per token that a layer has at once while it is gone back through, beside what it keeps."""
        return 3 * self.intermediate

    @property
    def forward(self) -> int:
        """Numbers per token that exist at once in a forward pass without gradients."""
        return 3 * self.hidden + (3 if self.gated else 2) * self.intermediate


def empty_model(config: Any, *, classifier: bool = False) -> Any:
    """The model of a config on the meta device: shapes without numbers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
    with torch.device("meta"):
        return kind.from_config(config)


def _inner(text: Any) -> int:
    found = getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None)
    return found or 4 * text.hidden_size


def _parts(model: Any) -> list[Any]:
    """The model's layers and what stands outside of them."""
    import torch

    layers = max((m for m in model.modules() if isinstance(m, torch.nn.ModuleList)), key=len)
    ends = [m for m in model.modules() if isinstance(m, torch.nn.Embedding | torch.nn.Linear)]
    return [*layers, *ends]
