"""ORPO: the loss and metrics of a plain computation, learning, and options that all do something."""

import math

import pytest
import torch

from tests.builders import tiny_model
from trellis import ORPOConfig
from trellis.experimental import orpo as experimental

from .preference_runs import built, means, pairs, plain_logps, trained, weights


def test_the_loss_and_the_metrics_are_the_formulas(tmp_path):
    trainer = built("ORPO", tmp_path, beta=0.3)
    rows = list(trainer.train_dataset)[:5]
    out = trainer.loss(trainer.model.eval(), trainer.collate(rows))
    total, likelihood, ratios = 0.0, 0.0, []
    for row in rows:
        averages = []
        for side in ("chosen_ids", "rejected_ids"):
            table = plain_logps(trainer.model, row["prompt_ids"], row[side])
            averages.append(math.fsum(float(table[i, t]) for i, t in enumerate(row[side])) / len(row[side]))
        odds = [math.exp(x) / (1 - math.exp(x)) for x in averages]
        ratios.append(math.log(odds[0] / odds[1]))
        total += -averages[0] + 0.3 * math.log1p(math.exp(-ratios[-1]))
        likelihood -= averages[0]
    assert out.total.item() == pytest.approx(total, rel=1e-5)
    found = means(out.metrics)
    assert found["nll_loss"] == pytest.approx(likelihood / 5, rel=1e-5)
    assert found["log_odds_chosen"] == pytest.approx(sum(ratios) / 5, rel=1e-3)
    assert found["log_odds_ratio"] == pytest.approx(
        -sum(math.log1p(math.exp(-r)) for r in ratios) / 5, rel=1e-4
    )
    assert found["rewards/chosen"] == pytest.approx(-0.3 * likelihood / 5, rel=1e-5)
    assert found["logps/chosen"] == pytest.approx(-likelihood / 5, rel=1e-5)


def test_only_the_answers_tokens_are_trained(tmp_path):
    trainer = built("ORPO", tmp_path)
    batch = trainer.collate(list(trainer.train_dataset)[:4])
    columns = torch.arange(batch.tokens.input_ids.shape[1])
    assert not batch.tokens.loss_mask[columns < batch.tokens.prompt_len[:, None]].any()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_held_out_pairs_are_told_apart(tmp_path, seed):
    held_out = {"eval_dataset": pairs(24, seed=50)}
    model = tiny_model("llama", seed=seed)
    trainer = built("ORPO", tmp_path, model, pairs(64), trainer=held_out, max_steps=30, seed=seed, beta=1.0)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < before["eval_loss"] - 1.0
    assert after["eval_rewards/accuracies"] > 0.9
    assert after["eval_log_odds_chosen"] > before["eval_log_odds_chosen"]


@pytest.mark.parametrize(
    "more", [{"beta": 0.8}, {"max_length": 6}, {"max_prompt_length": 2}, {"learning_rate": 1e-4}]
)
def test_options_move_the_weights(tmp_path, more):
    assert not torch.equal(weights(trained("ORPO", tmp_path)), weights(trained("ORPO", tmp_path, **more)))


def test_its_fields_are_the_ones_that_cpo_shares(tmp_path):
    assert "alpha" not in ORPOConfig.__dataclass_fields__
    assert ORPOConfig(str(tmp_path), use_cpu=True).learning_rate == 1e-6
    with pytest.raises(ValueError, match="beta=-1"):
        ORPOConfig(str(tmp_path), use_cpu=True, beta=-1.0)
    with pytest.warns(FutureWarning, match="max_length is now a field"):
        trainer = built("ORPO", tmp_path, trainer={"max_length": 7})
    assert trainer.args.max_length == 7


def test_the_second_path_gives_the_same_classes(tmp_path):
    assert type(built("ORPO", tmp_path)) is experimental.ORPOTrainer
