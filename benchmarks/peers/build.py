"""`python -m benchmarks.peers.build CASE.json FOLDER`: models, a tokenizer and rows on disk, for both sides.

It runs in the peer's environment, because what an older transformers saves a newer one loads, and not the other way round.
"""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GPTNeoXForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from .cases import SHAPES, Case, from_json

PAD, EOS, FIRST = 0, 1, 8


def tokenizer_of(vocabulary: int) -> PreTrainedTokenizerFast:
    """One word per token, so that texts and token ids say the same."""
    words = {f"w{i}": i for i in range(vocabulary)}
    words = {("<pad>", "</s>", "<unk>")[i] if i < 3 else word: i for word, i in words.items()}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="left"
    )


def config_of(shape: dict[str, Any]) -> GPTNeoXConfig | LlamaConfig:
    kind = GPTNeoXConfig if shape["kind"] == "gpt_neox" else LlamaConfig
    return kind(
        vocab_size=shape["vocab_size"],
        hidden_size=shape["width"],
        intermediate_size=shape["inner"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        max_position_embeddings=2_048,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=None,
        tie_word_embeddings=False,
    )


@torch.no_grad()
def end_after(model: torch.nn.Module, tokens: int) -> None:
    """Let a random model stop after about `tokens` tokens: one coordinate of its states is made the same everywhere, and the end
    token's logit is read there.
    """
    ids = torch.randint(FIRST, model.config.vocab_size, (4, 32))
    model.get_input_embeddings().weight[:, 0] = (
        4 * model.config.initializer_range * model.config.hidden_size**0.5
    )
    head = model.get_output_embeddings().weight
    head[:, 0] = 0
    states = model(ids, output_hidden_states=True).hidden_states[-1][..., 0]
    head[EOS] = 0
    head[EOS, 0] = math.log(model.config.vocab_size / tokens) / states.mean()


def length(draw: random.Random, low: int, median: int, high: int) -> int:
    """Log-normal around `median`; one in twelve is longer than `high`, by at most a third."""
    if draw.random() < 1 / 12:
        return draw.randint(high, high + high // 3)
    return min(high, max(low, round(median * math.exp(draw.gauss(0, 0.45)))))


def rows_of(case: Case, vocabulary: int) -> list[dict[str, Any]]:
    """Prompt, chosen and rejected token ids, or a prompt and its answers; responses end by chance, at least at the limit."""
    draw = random.Random(0)

    def ids(count: int) -> list[int]:
        return [draw.randrange(FIRST, vocabulary) for _ in range(count)]

    def response() -> list[int]:
        return ids(min(case.response - 1, 3 + round(draw.expovariate(1 / case.stop_after))))

    if case.groups:
        return [
            {
                "prompt": ids(length(draw, *case.prompt)),
                "answers": [[*response(), EOS] for _ in range(case.samples)],
            }
            for _ in range(case.rows // case.samples * case.passes)
        ]
    return [
        {"prompt": ids(length(draw, *case.prompt)), "chosen": response(), "rejected": response()}
        for _ in range(case.rows * case.passes)
    ]


def needed(case: Case) -> tuple[str, ...]:
    """Which models the case's trainers load."""
    if case.draws:
        return ("policy", "value", "reward")
    return ("policy", "reward") if case.method == "reward" else ("policy",)


def matrices(policy: PreTrainedModel, shape: dict[str, Any]) -> dict[str, int]:
    """The facts of `floor_flops` that the model has."""
    head = policy.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in policy.parameters() if p.dim() == 2) - 2 * head
    in_mlp = 2 if shape["kind"] == "gpt_neox" else 3
    last = 2 * shape["width"] ** 2 + in_mlp * shape["width"] * shape["inner"]  # queries, output, MLP
    return {"body": body, "last": last, "head": head}


def build(case: Case, folder: Path) -> None:
    """The models that are needed (all with the tokenizer), rows.json, facts.json."""
    torch.manual_seed(0)
    shape = SHAPES[case.shape]
    config = config_of(shape)
    neox = config.model_type == "gpt_neox"
    causal = GPTNeoXForCausalLM if neox else LlamaForCausalLM
    classifier = GPTNeoXForSequenceClassification if neox else LlamaForSequenceClassification
    policy = causal(config)
    end_after(policy, case.stop_after)
    policy.generation_config.eos_token_id = EOS
    tokenizer = tokenizer_of(config.vocab_size)
    config.num_labels = 1
    for name in needed(case):
        model = policy if name == "policy" else classifier(config)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    (folder / "facts.json").write_text(json.dumps(matrices(policy, shape)))
    (folder / "rows.json").write_text(json.dumps(rows_of(case, config.vocab_size)))


if __name__ == "__main__":
    asked = from_json(json.loads(Path(sys.argv[1]).read_text()))
    build(asked, Path(sys.argv[2]) / "full")
    build(asked.tiny(), Path(sys.argv[2]) / "tiny")
