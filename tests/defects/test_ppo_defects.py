"""Rows 1–7, 9, 10, 15, 16, 18 and 21 of docs/ppo_defects.md: steps, divisors, seeds, options that count."""

import random
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from tests.builders import tiny_model
from tests.trainers.ppo_runs import TEXTS, Steps, logged, moved, stops_often, trainer_of, weights
from trellis import PPOConfig


@pytest.mark.parametrize("minibatches", [1, 2, 4])
def test_defect_01_every_minibatch_is_an_optimizer_step(tmp_path, minibatches):
    """Four micro-batches per rollout, whatever number of minibatches they are cut into."""
    steps = Steps()
    trainer = trainer_of(
        tmp_path,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
        num_mini_batches=minibatches,
        parts={"callbacks": [steps]},
    )
    trainer.train()
    assert steps.optimizer_steps == trainer.state.global_step == 2 * 2 * minibatches
    taken = {int(state["step"]) for state in trainer.optimizer.optimizer.state.values()}
    assert taken == {2 * 2 * minibatches}


@pytest.mark.parametrize("minibatches", [1, 4])
def test_defect_02_metrics_are_not_divided_by_the_number_of_minibatches(tmp_path, minibatches):
    trainer = trainer_of(
        tmp_path, num_mini_batches=minibatches, learning_rate=0.0, num_ppo_epochs=1, total_episodes=4
    )
    trainer.train()
    entropies = []
    for ratio, entropy, kl in zip(
        *(logged(trainer, f"{name}") for name in ("val/ratio", "policy/entropy_avg", "policy/approxkl_avg")),
        strict=True,
    ):
        assert ratio == pytest.approx(1.0, abs=1e-6)
        assert kl == pytest.approx(0.0, abs=1e-9)
        entropies.append(entropy)
    assert len(entropies) == minibatches
    assert all(4.5 < entropy < 5.8 for entropy in entropies), "near log 320"


def test_defect_03_the_last_batch_of_a_pass_is_a_batch_like_any_other(tmp_path):
    """Eight prompts, rollouts of four: every second rollout ends a pass over the data. Each takes one step of four rows."""
    steps, rows = Steps(), []
    trainer = trainer_of(
        tmp_path,
        parts={"train_dataset": TEXTS[:8], "callbacks": [steps]},
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
        num_ppo_epochs=1,
        total_episodes=24,
    )
    plain = trainer.get_batch_samples
    trainer.get_batch_samples = lambda *args: rows.append(plain(*args)) or rows[-1]
    trainer.train()
    assert steps.optimizer_steps == 6
    for batches, items in rows:
        assert sum(map(len, batches)) == 4
        assert int(items) == sum(int(batch.loss_mask.sum()) for batch in batches), "one divisor for the step"


def test_defect_04_sample_tables_and_evaluation_leave_training_alone(tmp_path):
    """With a one-batch eval set, a table at each rollout and an evaluation at each step: the same weights as with none."""
    found = []
    for extra, parts in (
        ({}, {}),
        (
            {"num_sample_generations": 9, "eval_strategy": "steps", "eval_steps": 1},
            {"eval_dataset": TEXTS[:2]},
        ),
    ):
        model = tiny_model("llama")
        trainer_of(tmp_path, parts={"model": model, **parts}, **extra).train()
        found.append(weights(model))
    assert all(found[0][name].equal(found[1][name]) for name in found[0])


def test_defect_05_gradients_are_clipped(tmp_path):
    """One step of plain gradient descent at rate 1 moves the weights by exactly the bound."""
    trainer = trainer_of(
        tmp_path, optim="sgd", learning_rate=1.0, max_grad_norm=1e-3, num_ppo_epochs=1, total_episodes=4
    )
    before = weights(trainer.actor_critic)
    trainer.train()
    assert logged(trainer, "grad_norm")[0] > 0.01
    change = [(p.detach() - before[n]).flatten() for n, p in trainer.actor_critic.named_parameters()]
    assert float(torch.cat(change).norm()) == pytest.approx(1e-3, rel=1e-3)


def test_defect_06_gradient_checkpointing_works(tmp_path):
    """Sampling still works, the backward pass runs the layers again, and the weights are those without it."""
    found, calls = [], []
    for on in (False, True):
        model = tiny_model("llama")
        count = [0]
        model.model.layers[0].mlp.register_forward_pre_hook(
            lambda *_, count=count: count.__setitem__(0, count[0] + 1)
        )
        before = weights(model)
        # SGD moves a weight by its gradient, where Adam would show rounding.
        plain = {"optim": "sgd", "learning_rate": 0.1, "gradient_checkpointing": on}
        trainer_of(tmp_path, parts={"model": model}, **plain).train()
        found.append(weights(model))
        assert max(float((found[-1][name] - before[name]).abs().max()) for name in before) > 1e-3
        calls.append(count[0])
    assert calls[1] == calls[0] + 2 * 2 * 2, "once more for each micro-batch"
    for name in found[0]:
        torch.testing.assert_close(found[1][name], found[0][name], rtol=0, atol=1e-6)


def test_defect_07_the_critic_is_saved_and_a_run_goes_on(tmp_path):
    """Resumed inside a rollout, the weights are those of the run that was not interrupted; tests/resume kills it as well."""
    whole = trainer_of(tmp_path / "whole", num_mini_batches=2)
    whole.train()
    first = trainer_of(
        tmp_path / "run",
        num_mini_batches=2,
        save_strategy="steps",
        save_steps=3,
        parts={"callbacks": [Steps(3)]},
    )
    first.train()
    saved = Path(tmp_path, "run", "checkpoint-3")
    assert (saved / "critic" / "value_head.safetensors").is_file()
    second = trainer_of(tmp_path / "run", num_mini_batches=2)
    second.train(resume_from_checkpoint=True)
    assert second.state.global_step == 8
    for a, b in zip(whole.actor_critic.parameters(), second.actor_critic.parameters(), strict=True):
        assert a.equal(b)


@pytest.mark.parametrize("held_out", [None, TEXTS[:3], {"a": TEXTS[:2], "b": TEXTS[2:5]}])
def test_defect_09_evaluation_works(tmp_path, held_out):
    """With no eval set, with one and with several; sample tables at their default need none either."""
    trainer = trainer_of(
        tmp_path, parts={"eval_dataset": held_out}, num_sample_generations=10, total_episodes=4
    )
    trainer.train()
    found = trainer.evaluate()
    names = ["eval_a", "eval_b"] if isinstance(held_out, dict) else ["eval"]
    for name in names:
        assert {f"{name}_objective/scores", f"{name}_objective/kl", f"{name}_rewards/letters/mean"} <= set(
            found
        )


def test_defect_09_eval_steps_count(tmp_path):
    trainer = trainer_of(tmp_path, parts={"eval_dataset": TEXTS[:2]}, eval_strategy="steps", eval_steps=2)
    trainer.train()
    entries = [e["step"] for e in trainer.state.log_history if "eval_objective/scores" in e]
    assert entries == [2, 4]


def test_defect_10_a_data_set_smaller_than_a_rollout_is_an_error_at_once(tmp_path):
    start = time.perf_counter()
    with pytest.raises(ValueError, match="a rollout has 4 rows .* only 3 prompts; give more prompts"):
        trainer_of(tmp_path, parts={"train_dataset": TEXTS[:3]})
    assert time.perf_counter() - start < 5


def test_defect_15_the_seed_decides_everything(tmp_path):
    found = []
    for ambient, seed in ((1, 0), (2, 0), (1, 9)):
        model = tiny_model("llama")
        trainer = trainer_of(tmp_path, parts={"model": model}, num_mini_batches=2, seed=seed)
        random.seed(ambient)
        np.random.seed(ambient)
        torch.manual_seed(ambient)
        trainer.train()
        found.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert found[0].equal(found[1]), "the ambient state does not count"
    assert not found[0].equal(found[2])


class Facts(TrainerCallback):
    def __init__(self):
        self.logs = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append((state.global_step, dict(logs)))


def test_defect_16_the_loops_own_arguments_count(tmp_path):
    """max_steps, should_training_stop, run_name, logging_steps and logging_first_step."""
    trainer = trainer_of(tmp_path, max_steps=3)
    trainer.train()
    assert trainer.state.global_step == 3
    trainer = trainer_of(tmp_path, parts={"callbacks": [Steps(stop_after=2)]})
    trainer.train()
    assert trainer.state.global_step == 2
    assert trainer_of(tmp_path, run_name="mine").args.run_name == "mine"
    facts = Facts()
    trainer_of(tmp_path, parts={"callbacks": [facts]}, logging_steps=3, logging_first_step=True).train()
    assert [step for step, logs in facts.logs if "val/ratio" in logs] == [1, 3]


def test_defect_16_data_seed_orders_the_prompts(tmp_path):
    rows = [trainer_of(tmp_path, data_seed=seed).next_rollout().row.tolist() for seed in (1, 1, 2)]
    assert rows[0] == rows[1] != rows[2]


def test_defect_16_the_best_checkpoint_is_loaded_at_the_end(tmp_path):
    trainer = trainer_of(
        tmp_path,
        parts={"eval_dataset": TEXTS[:4]},
        load_best_model_at_end=True,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=1,
        save_steps=1,
    )
    trainer.train()
    scores = logged(trainer, "eval_objective/scores")
    best = Path(trainer.state.best_model_checkpoint)
    assert best.name == f"checkpoint-{scores.index(max(scores)) + 1}"
    from safetensors.torch import load_file

    saved = load_file(best / "model.safetensors")
    now = trainer.policy.state_dict()
    assert all(now[name].equal(value) for name, value in saved.items())


def test_defect_18_tokens_weigh_the_same_however_rows_are_split(tmp_path):
    """Responses of many lengths in micro-batches of 1, 2 or 4 rows: one gradient, one log."""
    found, logs = [], []
    for micro, accumulation in ((1, 4), (2, 2), (4, 1)):
        model = stops_often(tiny_model("llama"))
        trainer = trainer_of(
            tmp_path,
            parts={"model": model},
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=accumulation,
            optim="sgd",
            learning_rate=0.1,
            total_episodes=4,
            num_ppo_epochs=1,
        )
        before = weights(model)
        trainer.train()
        assert len(set(trainer.rollout.loss_mask.sum(1).tolist())) > 1
        assert moved(before, model)
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        entry = trainer.state.log_history[0]
        logs.append({k: v for k, v in entry.items() if "/" in k and not k.startswith("sampling")})
    for other in (1, 2):
        torch.testing.assert_close(found[other], found[0], rtol=0, atol=1e-6)
        assert logs[other] == pytest.approx(logs[0], abs=1e-5)


def test_defect_21_what_was_missed_exists_and_is_tested_to_have_an_effect():
    """Each of these is a row of the table in test_ppo_options.py, whose run must differ from the plain one."""
    from tests.trainers.test_ppo_options import EFFECTS

    missed = {
        *(
            "top_p",
            "top_k",
            "min_p",
            "value_learning_rate",
            "value_warmup_steps",
            "kl_target",
            "early_stop_kl",
        ),
        *("entropy_coef", "reward_scale", "reward_clip", "dual_clip", "kl_horizon"),
    }
    assert missed <= {f.name for f in fields(PPOConfig)}
    assert missed <= set(EFFECTS)
