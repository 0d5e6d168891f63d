"""Supervised fine-tuning learns, and packing changes how fast it computes, not what it learns."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from tests.builders import tiny_model, tiny_tokenizer
from trellis import SFTConfig, SFTTrainer
from trellis.scoring import score

SUBJECTS = ["the battery", "the screen", "the sound", "the price", "this player", "the picture"]
GOOD, BAD = ["very good", "great", "easy to use"], ["bad", "not good", "very small"]


def reviews(count: int, seed: int) -> list[dict[str, str]]:
    """Sentences of one grammar: what was said of a thing first is said of it again."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        thing, said = draw.choice(SUBJECTS), draw.choice(draw.choice([GOOD, BAD]))
        rows.append({"text": f"{thing} is {said} and i say again that {thing} is {said} ."})
    return rows


def trainer(folder: Any, seed: int = 0, **changes: Any) -> SFTTrainer:
    tokenizer = tiny_tokenizer()
    fields = {
        "output_dir": str(folder),
        "max_steps": 60,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": seed,
        **changes,
    }
    return SFTTrainer(
        tiny_model("llama", tokenizer, seed=seed),
        SFTConfig(**fields),
        train_dataset=reviews(256, seed=1),
        eval_dataset=reviews(32, seed=2),
        processing_class=tokenizer,
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_held_out_loss_falls(seed: int, tmp_path: Any) -> None:
    learner = trainer(tmp_path, seed)
    before = learner.evaluate()
    learner.train()
    after = learner.evaluate()
    assert before["eval_loss"] > 5.0  # near ln 320, nothing is known
    # Thing and verdict are drawn: ln 6 + ln 6 nats per sentence cannot be known, a tenth of a nat per token.
    assert after["eval_loss"] < 0.5
    assert after["eval_mean_token_accuracy"] > 0.85
    assert after["eval_entropy"] < before["eval_entropy"]


def test_packing_learns_the_same_from_the_same_rows(tmp_path: Any) -> None:
    packed = trainer(tmp_path, packing=True, max_length=128, max_steps=30)
    packed.train()
    assert packed.evaluate()["eval_loss"] < 0.8


@pytest.mark.parametrize("strategy", ["bfd", "bfd_split"])
def test_packed_tokens_have_the_losses_of_unpacked_ones(strategy: str, tmp_path: Any) -> None:
    single = trainer(tmp_path / "a", max_length=64)
    packed = trainer(tmp_path / "b", max_length=64, packing=True, packing_strategy=strategy)
    assert len(packed.train_dataset) < len(single.train_dataset)
    for layout in ("packed", "padded"):
        alone, together = (
            losses_by_sentence(each, list(range(len(each.train_dataset))), layout)
            for each in (single, packed)
        )
        assert alone.keys() == together.keys()
        for sentence, logps in alone.items():
            torch.testing.assert_close(together[sentence], logps, atol=1e-5, rtol=1e-5)


def losses_by_sentence(learner: SFTTrainer, index: list[int], layout: str) -> dict[tuple, torch.Tensor]:
    """{a row's tokens: their log-probabilities} over the whole training data."""
    found = {}
    for start in range(0, len(index), 16):
        batch = learner.collate([learner.train_dataset[i] for i in index[start : start + 16]])
        with torch.no_grad():
            logps = score(learner.model, batch, layout=layout).logps
        for ids, row, n in zip(batch.input_ids.tolist(), logps, batch.lengths.tolist(), strict=True):
            found[tuple(ids[:n])] = row[:n]
    return found
