"""Preferences learn on real text: phrases of product reviews that people liked, against others that they did not."""

import pytest
import torch

from tests.builders import tiny_model, tiny_tokenizer
from trellis import (
    CPOConfig,
    CPOTrainer,
    DPOConfig,
    DPOTrainer,
    KTOConfig,
    KTOTrainer,
    ORPOConfig,
    ORPOTrainer,
)
from trellis.demo.data import load

METHODS = {
    "dpo": (DPOTrainer, DPOConfig, {"loss_type": "sigmoid_norm", "beta": 2.0}),
    "cpo": (CPOTrainer, CPOConfig, {"loss_type": "simpo", "beta": 2.0, "cpo_alpha": 0.0}),
    "orpo": (ORPOTrainer, ORPOConfig, {"beta": 1.0}),
    "kto": (KTOTrainer, KTOConfig, {"beta": 0.5}),
}


def run(folder, method, seed, shuffled=False):
    """(evaluation before, evaluation after) of a small model that is trained from nothing on 750 pairs (KTO: their answers)."""
    data = load()
    train, test = data.pairs[:750], data.pairs_test[:300]
    if shuffled:
        draw = torch.randperm(2 * len(train), generator=torch.Generator().manual_seed(seed)) % 2
        train = [
            p if d else {"chosen": p["rejected"], "rejected": p["chosen"]}
            for p, d in zip(train, draw.tolist(), strict=False)
        ]
    trainer_of, config, settings = METHODS[method]
    tokenizer = tiny_tokenizer()
    trainer = trainer_of(
        tiny_model("llama", tokenizer, seed=seed, hidden_size=64, intermediate_size=128, initializer_range=0.02),
        args=config(
            str(folder), use_cpu=True, disable_tqdm=True, save_strategy="no", seed=seed, learning_rate=3e-3,
            per_device_train_batch_size=16, num_train_epochs=1, max_length=64, **settings,
        ),
        train_dataset=train,
        eval_dataset=test,
        processing_class=tokenizer,
    )  # fmt: skip
    before = trainer.evaluate()
    trainer.train()
    return before, trainer.evaluate()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("method", ["dpo", "cpo", "orpo"])
def test_held_out_pairs_are_put_in_order(tmp_path, method, seed):
    before, after = run(tmp_path, method, seed)
    assert after["eval_loss"] < before["eval_loss"]
    assert after["eval_rewards/margins"] > before["eval_rewards/margins"]
    assert after["eval_rewards/accuracies"] > 0.75


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_held_out_answers_are_told_apart(tmp_path, seed):
    before, after = run(tmp_path, "kto", seed)
    assert after["eval_loss"] < before["eval_loss"]
    assert after["eval_rewards/chosen"] > after["eval_rewards/rejected"]


@pytest.mark.slow
def test_labels_drawn_at_random_teach_nothing(tmp_path):
    _, after = run(tmp_path, "dpo", 0, shuffled=True)
    assert 0.35 < after["eval_rewards/accuracies"] < 0.65
