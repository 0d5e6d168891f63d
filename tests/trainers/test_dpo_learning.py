"""DPO learns on real text: phrases of product reviews that people liked, against others that they did not."""

import pytest
import torch

from tests.builders import tiny_model, tiny_tokenizer
from trellis import DPOConfig, DPOTrainer
from trellis.demo.data import load


def separated(folder, seed, shuffled=False):
    """Share of held-out pairs that a small model, trained from nothing on 1,500 pairs, puts in the right order."""
    data = load()
    train, test = data.pairs[:1500], data.pairs_test[:300]
    if shuffled:
        draw = torch.randperm(2 * len(train), generator=torch.Generator().manual_seed(seed)) % 2
        train = [
            p if d else {"chosen": p["rejected"], "rejected": p["chosen"]}
            for p, d in zip(train, draw.tolist(), strict=False)
        ]
    tokenizer = tiny_tokenizer()
    trainer = DPOTrainer(
        tiny_model("llama", tokenizer, seed=seed, hidden_size=64, intermediate_size=128, initializer_range=0.02),
        args=DPOConfig(
            str(folder), use_cpu=True, disable_tqdm=True, save_strategy="no", seed=seed, learning_rate=3e-3,
            per_device_train_batch_size=32, num_train_epochs=2, max_length=64, loss_type="sigmoid_norm", beta=2.0,
        ),
        train_dataset=train,
        eval_dataset=test,
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    return trainer.evaluate()["eval_rewards/accuracies"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_held_out_pairs_are_put_in_order(tmp_path, seed):
    assert separated(tmp_path, seed) > 0.75


@pytest.mark.slow
def test_labels_drawn_at_random_teach_nothing(tmp_path):
    assert 0.35 < separated(tmp_path, 0, shuffled=True) < 0.65
