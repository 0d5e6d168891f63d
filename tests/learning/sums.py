"""Small sums in GSM8K's format, a model that learned from a poor teacher, and how often it is right.

Each row is `{"question": "12+07=", "answer": "#### 19"}`; a fifth of the sums is never trained on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast
from transformers.models.llama import LlamaForCausalLM

from trellis import SFTConfig, SFTTrainer
from trellis.rollout import SamplingParams, sample

LIMIT = 40
TOKENS = ["</s>", "<pad>", "+", "=", "#### ", *"0123456789"]


def sums(limit: int = LIMIT) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """(sums to train on, sums held out) of two numbers that make less than `limit`."""
    rows = [
        {"question": f"{a:02}+{b:02}=", "answer": f"#### {a + b:02}"}
        for a in range(limit)
        for b in range(limit - a)
    ]
    random.Random(0).shuffle(rows)
    return rows[len(rows) // 5 :], rows[: len(rows) // 5]


def demonstrations(rows: Sequence[dict[str, str]], right: float = 0.5) -> list[dict[str, str]]:
    """Each sum eight times, with its own answer in a share `right` of them, else with one that is a little off."""
    draw = random.Random(1)
    found = []
    for row in rows:
        for _ in range(8):
            off = 0 if draw.random() < right else draw.choice([-2, -1, 1, 2])
            answer = max(0, int(row["answer"].removeprefix("#### ")) + off)
            found.append({"question": row["question"], "answer": f"#### {answer:02}"})
    return found


def sums_tokenizer() -> PreTrainedTokenizerFast:
    """A token per digit and sign, and one for what announces the answer."""
    backend = Tokenizer(models.WordLevel({token: i for i, token in enumerate(TOKENS)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("#### |."), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>")


def cold_start(folder: Path, seed: int, steps: int = 400) -> Path:
    """A small model that imitates `demonstrations` of the training sums; returns where it lies."""
    tokenizer, train = sums_tokenizer(), sums()[0]
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=32, initializer_range=0.06, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(seed)
    args = SFTConfig(
        str(folder), use_cpu=True, disable_tqdm=True, save_strategy="no", report_to="none", seed=seed,
        max_steps=steps, per_device_train_batch_size=64, learning_rate=3e-3, warmup_steps=10,
    )  # fmt: skip
    trainer = SFTTrainer(
        LlamaForCausalLM(shape), args, train_dataset=demonstrations(train), processing_class=tokenizer
    )
    trainer.train()
    trainer.save_model()
    return folder


def accuracy(model: Any, tokenizer: Any, rows: Sequence[dict[str, str]], samples: int = 8) -> float:
    """Share of sampled answers that are right, at temperature 1."""
    prompts = [tokenizer(row["question"], add_special_tokens=False)["input_ids"] for row in rows]
    params = SamplingParams(max_new_tokens=4, stop_ids=frozenset([tokenizer.eos_token_id]))
    found = sample(model, prompts, params, n=samples, seeds=range(samples * len(rows)))
    said = [tokenizer.decode(c.ids, skip_special_tokens=True) for c in found]
    right = [row["answer"] for row in rows for _ in range(samples)]
    return sum(a == b for a, b in zip(said, right, strict=True)) / len(said)
