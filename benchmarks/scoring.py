"""Log-probabilities of rows of mixed length: `trellis.scoring.score` beside padded logits and a log-softmax over them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from trellis.scoring import score
from trellis.types import TokenBatch

from .measure import Case


def model_of(vocabulary: int) -> LlamaForCausalLM:
    """A random two-layer Llama of width 128."""
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **shape)).eval()


def batch_of(rows: int, longest: int, vocabulary: int) -> TokenBatch:
    """Rows of 16 to `longest` tokens, whose first eight are a prompt."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(16, longest + 1, (rows,), generator=draw).tolist()
    ids = [torch.randint(0, vocabulary, (n,), generator=draw).tolist() for n in lengths]
    return TokenBatch.from_lists(ids, [[0] * 8 + [1] * (n - 8) for n in lengths], prompt_len=[8] * rows)


def plain_logps(model: nn.Module, batch: TokenBatch) -> Tensor:
    """[B, T]: the whole `[B, T, V]` logits, normalised, and the tokens picked out of them."""
    mask = batch.attention_mask.long()
    logits = model(input_ids=batch.input_ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    picked = logits.log_softmax(-1).gather(-1, batch.input_ids[:, 1:, None]).squeeze(-1)
    return nn.functional.pad(picked, (1, 0)) * batch.loss_mask


def cases() -> list[Case]:
    """Scoring for a rollout (no gradient) and for a training step (gradient), at a vocabulary of 16,384."""
    model, batch = model_of(16_384), batch_of(16, 128, 16_384)
    error = (score(model, batch).logps - plain_logps(model, batch)).abs().max().item()
    if error > 1e-4:
        raise ValueError(f"the two sides disagree by {error}: nothing to compare")

    def trained(logps: Tensor) -> None:
        model.zero_grad()
        logps.sum().backward()

    return [
        Case(
            "score, no gradient",
            torch.no_grad()(lambda: plain_logps(model, batch)),
            torch.no_grad()(lambda: score(model, batch).logps),
        ),
        Case(
            "score and backward",
            lambda: trained(plain_logps(model, batch)),
            lambda: trained(score(model, batch).logps),
        ),
    ]
