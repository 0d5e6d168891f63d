"""Log-probabilities of rows of mixed length: `trellis.scoring.score` beside padded logits and a log-softmax over them, and of
pairs: the layouts beside each other."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from trellis.scoring import score
from trellis.types import TokenBatch

from .measure import Case


def model_of(vocabulary: int, width: int = 128) -> LlamaForCausalLM:
    """A random two-layer Llama."""
    torch.manual_seed(0)
    shape = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **shape)).eval()


def batch_of(rows: int, longest: int, vocabulary: int) -> TokenBatch:
    """Rows of 16 to `longest` tokens, whose first eight are a prompt."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(16, longest + 1, (rows,), generator=draw).tolist()
    ids = [torch.randint(0, vocabulary, (n,), generator=draw).tolist() for n in lengths]
    return TokenBatch.from_lists(ids, [[0] * 8 + [1] * (n - 8) for n in lengths], prompt_len=[8] * rows)


def pairs_of(pairs: int, vocabulary: int) -> TokenBatch:
    """Chosen and rejected answers of 16 to 128 tokens to prompts of 150 to 600."""
    draw = torch.Generator().manual_seed(0)

    def text(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high + 1, (), generator=draw))
        return torch.randint(0, vocabulary, (length,), generator=draw).tolist()

    prompts = [text(150, 600) for _ in range(pairs)] * 2
    answers = [text(16, 128) for _ in prompts]
    return TokenBatch.from_lists(
        [p + a for p, a in zip(prompts, answers, strict=True)],
        [[0] * len(p) + [1] * len(a) for p, a in zip(prompts, answers, strict=True)],
        group=[*range(pairs)] * 2,
        prompt_len=[len(p) for p in prompts],
    )


def plain_logps(model: nn.Module, batch: TokenBatch) -> Tensor:
    """[B, T]: the whole `[B, T, V]` logits, normalised, and the tokens picked out of them."""
    mask = batch.attention_mask.long()
    logits = model(input_ids=batch.input_ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    picked = logits.log_softmax(-1).gather(-1, batch.input_ids[:, 1:, None]).squeeze(-1)
    return nn.functional.pad(picked, (1, 0)) * batch.loss_mask


def layouts(vocabulary: int = 8_192) -> list[Case]:
    """A step's forward and backward over four pairs with long prompts: each layout beside the padded one."""
    model, batch = model_of(vocabulary), pairs_of(4, vocabulary)

    def step(layout: str) -> None:
        model.zero_grad()
        score(model, batch, layout=layout).logps.sum().backward()

    padded = partial(step, "padded")
    return [Case(f"pairs, {name}", padded, partial(step, name)) for name in ("packed", "shared")]


def cases(*, small: bool = False) -> list[Case]:
    """Scoring for a rollout (no gradient) and for a training step (gradient), at a vocabulary of 16,384 (small: 512)."""
    vocabulary, rows = (512, 4) if small else (16_384, 16)
    model, batch = model_of(vocabulary), batch_of(rows, 128, vocabulary)
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
        *(layouts(vocabulary) if small else layouts()),
    ]
