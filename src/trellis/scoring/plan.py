"""Which layout and which head path a model gets: the fastest that a small probe has shown to give the model's own numbers.

Trunk plus head is not the whole story for every architecture (soft-capped or scaled logits, attention that knows nothing of
packing, layers with a memory). So the first time a model is scored, two short rows go through its own forward and through the
fast path; where they disagree, the model gets the next slower one, and a line says which and why.
"""

from __future__ import annotations

import logging
import weakref
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..models import base_causal_lm
from ..types import TokenBatch
from .attention import install
from .head import Transform, head_scores
from .heap import gaps_given_back
from .last_layer import read_at
from .layout import LAYOUTS, Arranged
from .thrift import thrifty

logger = logging.getLogger(__name__)
PROBE_LENGTHS, PROBE_PROMPT = (9, 5), 3


@dataclass(frozen=True)
class Plan:
    """The way a model is scored: `layout` is one of LAYOUTS; `fused` is False where whole logits must be made."""

    layout: str
    fused: bool
    reason: str = ""

    def arrange(self, batch: TokenBatch) -> Arranged:
        """The batch in this plan's layout."""
        return LAYOUTS[self.layout](batch)


_plans: weakref.WeakKeyDictionary[nn.Module, dict[str, Plan]] = weakref.WeakKeyDictionary()


def transform_of(config: object, temperature: float) -> Transform:
    """What an architecture's config says about its logits (Gemma-2's soft-cap, Cohere's and Granite's scale)."""
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(
        getattr(config, "logits_scaling", None) or 1.0
    )
    return Transform(
        scale=scale, softcap=getattr(config, "final_logit_softcapping", None), temperature=temperature
    )


def trunk_of(model: nn.Module) -> nn.Module:
    """The module that turns ids into hidden states."""
    return base_causal_lm(model).base_model


def trunk_states(model: nn.Module, arranged: Arranged, wanted: Tensor) -> Tensor:
    """[P, H]: the trunk's last hidden states over the arranged rows, flattened to [N, H], at the indices `wanted` [P]."""
    trunk = trunk_of(model)
    with thrifty(trunk), gaps_given_back(trunk, arranged.tokens), read_at(trunk, wanted):
        out = trunk(**arranged.inputs, use_cache=False)
    return out.last_hidden_state.flatten(0, 1)[wanted]


def plan_for(model: nn.Module, layout: str) -> Plan:
    """The plan of a causal language model or classifier for layout "auto" or one of LAYOUTS; probed once and remembered.

    "auto" tries shared, packed, padded. Raises ValueError for another name, or for one that would change the model's numbers.
    """
    lm = base_causal_lm(model)
    plans = _plans.setdefault(lm, {})
    if layout not in plans:
        plans[layout] = _choose(lm, layout)
        logger.info("%s is scored %s: %s", type(lm).__name__, plans[layout].layout, plans[layout].reason)
    return plans[layout]


def layouts_of(lm: nn.Module) -> list[Plan]:
    """The plans by which a model has been scored until now."""
    return list(_plans.get(lm, {}).values())


def _choose(lm: nn.Module, layout: str) -> Plan:
    if layout not in ("auto", *LAYOUTS):
        raise ValueError(f"layout={layout!r} is unknown; use one of {['auto', *LAYOUTS]}")
    if getattr(lm.config, "output_router_logits", False):
        return Plan("padded", False, "its router logits are needed for the load-balancing loss")
    problem = ""
    for name in ("shared", "packed", "padded") if layout == "auto" else (layout,):
        problem = "" if name == "padded" else _packing_problem(lm)
        problem = problem or _difference(lm, name)
        if not problem:
            return Plan(name, True, "a probe agreed with the model's own forward")
        if name == layout != "padded":
            raise ValueError(
                f"layout={name!r} does not suit {type(lm).__name__}: {problem}; use layout='auto'"
            )
    return Plan(
        "padded", False, f"trunk and head do not give its logits ({problem}), so whole logits are made"
    )


def _packing_problem(lm: nn.Module) -> str:
    implementation = getattr(lm.config, "_attn_implementation", None)
    if implementation != "sdpa":
        return f"its attention is {implementation!r}, packing needs 'sdpa'"
    layers = set(getattr(lm.config, "layer_types", None) or ["full_attention"])
    if layers - {"full_attention", "sliding_attention"}:
        return f"its layers {sorted(layers)} carry more than attention between tokens"
    install()
    return ""


def _probe_batch(lm: nn.Module) -> TokenBatch:
    """Two short rows of one group that begin alike."""
    vocab, device = lm.config.get_text_config().vocab_size, next(lm.parameters()).device
    ids = [
        [(7 * i + 3 * r * (i >= PROBE_PROMPT) + 1) % vocab for i in range(n)]
        for r, n in enumerate(PROBE_LENGTHS)
    ]
    marks = [[int(i >= PROBE_PROMPT) for i in range(n)] for n in PROBE_LENGTHS]
    prompts = [PROBE_PROMPT] * len(ids)
    return TokenBatch.from_lists(ids, marks, group=[0] * len(ids), prompt_len=prompts).to(device)


@torch.no_grad()
def _difference(lm: nn.Module, layout: str) -> str:
    """Empty when trunk and head in `layout` give the numbers of the model's own forward on short rows, else what differs."""
    flags = {m: m.training for m in lm.modules()}
    lm.eval()
    try:
        found, want = _both_ways(lm, _probe_batch(lm), layout)
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        for module, training in flags.items():
            module.training = training
    exact = want.dtype == found.dtype == torch.float32
    worst = float((found.float() - want.float()).abs().max())
    limit = (1e-3 if exact else 0.1) * max(1.0, float(want.float().abs().max()))
    return "" if worst <= limit else f"numbers differ by {worst:.3g}"


def _both_ways(lm: nn.Module, batch: TokenBatch, layout: str) -> tuple[Tensor, Tensor]:
    """(trunk and head in `layout`, the model's own forward): log-probabilities, or a classifier's hidden states."""
    arranged, plain = LAYOUTS[layout](batch), LAYOUTS["padded"](batch)
    states = trunk_states(lm, arranged, arranged.flat)
    if (
        lm.get_output_embeddings() is None
    ):  # a classifier pools by its pad id, which the trunk does not depend on
        return states, trunk_of(lm)(**plain.inputs, use_cache=False).last_hidden_state.flatten(0, 1)[
            plain.flat
        ]
    targets = batch.input_ids.flatten()[arranged.place]
    found = head_scores(lm.get_output_embeddings(), states, targets, transform_of(lm.config, 1.0))["logps"]
    # Not lm(…): where this runs inside that call, FSDP would take the weights away at its end.
    own = lm.forward(**plain.inputs, use_cache=False).logits.flatten(0, 1)[plain.flat]
    return found.to(states.dtype), own.log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
