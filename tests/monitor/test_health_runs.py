"""Real runs with a planted fault, whose rules find it, and healthy ones, which hear nothing."""

import copy
import json
from collections import Counter

import pytest
from peft import LoraConfig
from torch import nn

from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer
from tests.monitor.streams import ONLINE
from tests.trainers import group_runs, ppo_runs, preference_runs
from tests.trainers.ppo_runs import stops_often
from tests.trainers.sft_runs import sft
from trellis import RewardConfig, RewardTrainer
from trellis.monitor import read_health
from trellis.monitor.health_rules import NAMES
from trellis.rollout import InProcess

PAIRS = preference_runs.pairs(256)
LORA = LoraConfig(r=4, target_modules=["q_proj", "spare"])


class Stale(InProcess):
    """An engine that never hears of new weights."""

    def sync(self, model, step):
        if step == 0:
            super().sync(copy.deepcopy(model), step)


def longer(completions, completion_ids, **_):
    return [len(ids) / 10 for ids in completion_ids]


def constant(completions, **_):
    return [0.3] * len(completions)


def endings(**config):
    """A Llama whose completions often end by themselves."""
    return stops_often(tiny_model("llama", **config), 0.25)


def ppo(folder, *, rollouts, parts=None, **args):
    return ppo_runs.trainer_of(folder, parts=parts, total_episodes=4 * rollouts, **args)


def repeated(completions, completion_ids, **_):
    """The share of each completion's most frequent token: the most is earned by saying one thing only."""
    return [Counter(ids).most_common(1)[0][1] / len(ids) for ids in completion_ids]


def wild(folder):
    """A rate far too high, with nothing that holds the policy back."""
    parts = {"reward_funcs": repeated}
    return ppo(
        folder, rollouts=24, parts=parts, learning_rate=0.2, kl_coef=0.0, num_ppo_epochs=4, response_length=24
    )


def clipped(folder):
    """A clip range that every step leaves."""
    return ppo(folder, rollouts=8, learning_rate=3e-2, cliprange=0.02, kl_coef=0.0, num_ppo_epochs=4)


def bad_critic(folder):
    return ppo(
        folder,
        rollouts=34,
        learning_rate=1e-4,
        value_learning_rate=0.3,
        num_ppo_epochs=1,
        parts={"model": endings()},
    )


def one_score(folder):
    return ppo(folder, rollouts=5, learning_rate=1e-3, parts={"reward_funcs": constant})


def stale_engine(folder):
    parts = {"engine": Stale(8), "model": endings()}
    return group_runs.build("RLOO", folder, max_steps=26, learning_rate=3e-2, beta=0.01, parts=parts)


def dropout(folder):
    model = stops_often(tiny_model("gpt2", embd_pdrop=0.3, resid_pdrop=0.3), 0.25)
    return group_runs.build(
        "GRPO", folder, max_steps=8, num_iterations=2, disable_dropout=False, parts={"model": model}
    )


def length_is_all(folder):
    return group_runs.build(
        "GRPO",
        folder,
        max_steps=42,
        num_generations=8,
        per_device_train_batch_size=16,
        max_completion_length=24,
        parts={"reward_funcs": longer, "model": endings()},
    )


def one_reward(folder):
    return group_runs.build("GRPO", folder, max_steps=4, parts={"reward_funcs": constant, "model": endings()})


def other_reference(folder):
    """The reference tells the pairs apart already, the policy does not, and hardly moves."""
    reference = preference_runs.built("DPO", folder / "before", data=PAIRS, max_steps=10)
    reference.train()
    return preference_runs.built(
        "DPO",
        folder,
        data=PAIRS,
        max_steps=26,
        learning_rate=1e-6,
        per_device_train_batch_size=64,
        trainer={"ref_model": reference.model},
    )


def reward_model(folder, data, **args):
    settings = {**preference_runs.COMMON, "max_steps": 26, "per_device_train_batch_size": 64, **args}
    return RewardTrainer(
        tiny_classifier("llama"),
        args=RewardConfig(str(folder), **settings),
        train_dataset=data,
        processing_class=tiny_tokenizer(),
    )


def coin(folder):
    """Pairs whose answers were swapped at random."""
    swapped = [
        {**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]} if i % 2 else pair
        for i, pair in enumerate(PAIRS)
    ]
    return reward_model(folder, swapped, learning_rate=1e-5)


def still(method, **more):
    def build(folder):
        return preference_runs.built(method, folder, max_steps=8, learning_rate=0.0, **more)

    return build


def dead_adapter(folder):
    """An adapter on a layer that the forward pass never calls."""
    model = tiny_model("llama")
    model.model.layers[1].mlp.spare = nn.Linear(32, 32)
    return sft(folder, model=model, trainer={"peft_config": LORA}, max_steps=2, logging_steps=1)


FAULTS = [
    (wild, {"kl-blow-up", "entropy-collapse"}),
    (clipped, {"clip-fraction"}),
    (bad_critic, {"value-explained-variance"}),
    (one_score, {"rewards-all-equal"}),
    (stale_engine, {"kl-negative"}),
    (dropout, {"ratio-not-one"}),
    (length_is_all, {"reward-by-length", "eos-share-falling", "truncation"}),
    (one_reward, {"rewards-all-equal"}),
    (other_reference, {"margins-negative"}),
    (coin, {"accuracy-at-chance"}),
    (dead_adapter, {"dead-lora"}),
    (still("DPO"), {"loss-stuck"}),
    (still("KTO", data=preference_runs.labelled()), {"loss-stuck"}),
]


def found(folder):
    return {event["name"] for event in read_health(folder) if event["event"] == "found"}


@pytest.mark.parametrize(("build", "names"), FAULTS, ids=[b.__name__ for b, _ in FAULTS])
def test_a_planted_fault_is_named(tmp_path, caplog, build, names):
    build(tmp_path).train()
    assert names <= found(tmp_path)
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("health, step")]
    assert all(any(f": {name}: " in line for line in said) for name in names)
    assert all("\n" not in line for line in said)


def test_every_rule_has_a_run_that_triggers_it():
    assert {name for _, names in FAULTS for name in names} == set(NAMES)


HEALTHY = {
    "ppo": lambda f: ppo(f, rollouts=30, learning_rate=1e-3, parts={"model": endings()}),
    "grpo": lambda f: group_runs.build(
        "GRPO", f, max_steps=35, learning_rate=3e-3, parts={"model": endings()}
    ),
    "rloo": lambda f: group_runs.build(
        "RLOO", f, max_steps=25, learning_rate=3e-3, beta=0.05, parts={"model": endings()}
    ),
    "dpo": lambda f: preference_runs.built(
        "DPO", f, data=PAIRS, max_steps=26, per_device_train_batch_size=64
    ),
    "orpo": lambda f: preference_runs.built("ORPO", f, data=PAIRS, max_steps=22),
    "cpo": lambda f: preference_runs.built("CPO", f, data=PAIRS, max_steps=22),
    "kto": lambda f: preference_runs.built("KTO", f, data=preference_runs.labelled(64), max_steps=22),
    "reward": lambda f: reward_model(f, PAIRS),
    "sft": lambda f: sft(f, max_steps=12, logging_steps=1),
}


@pytest.mark.parametrize("method", HEALTHY)
def test_a_healthy_run_hears_nothing(tmp_path, method):
    trainer = HEALTHY[method](tmp_path)
    trainer.train()
    assert read_health(tmp_path) == []
    rules = {rule.name for rule in trainer.health.diagnoses.rules}
    assert ("kl-blow-up" in rules) == (method in ONLINE)


def test_a_run_stops_where_it_was_asked_to(tmp_path):
    trainer = preference_runs.built(
        "DPO", tmp_path, max_steps=20, learning_rate=0.0, stop_on_health=["loss-stuck"]
    )
    trainer.train()
    assert trainer.state.global_step == 8


def test_a_run_goes_back_to_its_last_checkpoint_and_not_forever(tmp_path):
    trainer = preference_runs.built(
        "DPO",
        tmp_path,
        max_steps=20,
        learning_rate=0.0,
        roll_back_on_health=["loss-stuck"],
        max_bad_steps=1,
        save_strategy="steps",
        save_steps=4,
    )
    with pytest.raises(FloatingPointError, match="loss-stuck: .* Going back 1 times did not help"):
        trainer.train()
    assert [event["step"] for event in read_health(tmp_path)] == [8, 16]


def test_a_resumed_run_knows_what_was_found_and_says_it_once(tmp_path):
    def run(steps, resume=None):
        args = {"learning_rate": 0.0, "save_strategy": "steps", "save_steps": 10}
        trainer = preference_runs.built("DPO", tmp_path, max_steps=steps, **args)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    run(10)
    with (tmp_path / "health.jsonl").open("a") as file:
        file.write(json.dumps({"step": 11, "name": "x", "event": "found"}) + '\n{"step": 12, "na')
    again = run(14, resume=True)
    assert [event["step"] for event in read_health(tmp_path)] == [8]
    assert list(again.health.open) == ["loss-stuck"]


def test_health_can_be_left_out(tmp_path, caplog):
    trainer = group_runs.build(
        "GRPO", tmp_path, max_steps=5, health=False, parts={"reward_funcs": constant, "model": endings()}
    )
    trainer.train()
    assert read_health(tmp_path) == []
    assert not [r for r in caplog.records if "health" in r.getMessage()]


def test_unknown_rules_are_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(ValueError, match="stop_on_health names 'kl'"):
        RewardConfig(str(tmp_path), use_cpu=True, stop_on_health=["kl"])
    with pytest.raises(ValueError, match="need health=True"):
        RewardConfig(str(tmp_path), use_cpu=True, health=False, stop_on_health=["loss-stuck"])
    with pytest.raises(ValueError, match="leave save_only_model out"):
        RewardConfig(str(tmp_path), use_cpu=True, save_only_model=True, roll_back_on_health=["loss-stuck"])
