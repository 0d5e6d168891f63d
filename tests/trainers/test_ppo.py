"""PPOTrainer as a user meets it: what it takes, what it gives back, and what it refuses."""

import copy

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer
from tests.trainers.ppo_runs import TEXTS, letters, logged, moved, stops_often, trainer_of, weights
from trellis import PPOConfig, PPOTrainer
from trellis.models import load_causal_lm

CHATS = [[{"role": "user", "content": text}] for text in TEXTS]
LORA = {"r": 2, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


@pytest.fixture
def saved(tmp_path):
    """Directories of a policy, a reward model and their tokenizer."""
    tiny_model("llama").save_pretrained(tmp_path / "policy")
    tiny_classifier("llama", seed=1).save_pretrained(tmp_path / "reward")
    for name in ("policy", "reward"):
        tiny_tokenizer().save_pretrained(tmp_path / name)
    return tmp_path


def test_a_twelve_line_script(saved):
    def reward(completions, **columns):
        return [text.count("e") / (1 + len(text)) for text in completions]

    trainer = PPOTrainer(
        model=str(saved / "policy"),
        reward_funcs=reward,
        train_dataset=TEXTS,
        args=PPOConfig(
            output_dir=str(saved / "out"),
            use_cpu=True,
            per_device_train_batch_size=4,
            total_episodes=8,
            response_length=5,
        ),
    )
    trainer.train()
    trainer.save_model()
    AutoModelForCausalLM.from_pretrained(saved / "out")


def test_every_model_by_its_path(saved):
    policy, reward = str(saved / "policy"), str(saved / "reward")
    parts = {
        "model": policy,
        "ref_model": policy,
        "reward_model": reward,
        "value_model": reward,
        "processing_class": None,
    }
    trainer = trainer_of(saved / "out", parts={**parts, "train_dataset": CHATS})
    trainer.train()
    assert logged(trainer, "objective/kl")[0] == 0.0
    assert len(logged(trainer, "rewards/reward/mean") or [1]) >= 1
    trainer.save_model(str(saved / "final"))
    critic = AutoModelForSequenceClassification.from_pretrained(saved / "final" / "critic")
    assert moved(dict(tiny_classifier("llama", seed=1).named_parameters()), critic)


def test_the_critic_may_start_as_the_reward_model_which_stays(tmp_path):
    reward = tiny_classifier("llama", seed=1)
    before = weights(reward)
    trainer = trainer_of(tmp_path, parts={"reward_model": reward, "value_model": reward})
    trainer.train()
    assert not moved(before, reward)
    assert moved(before, trainer.actor_critic.value_model)


def test_an_adapter_on_the_critic_trains_nothing_else_of_it(tmp_path):
    shape = LoraConfig(r=2, target_modules=["q_proj"], task_type="SEQ_CLS")
    trainer = trainer_of(
        tmp_path, parts={"value_model": tiny_classifier("llama", seed=1), "value_peft_config": shape}
    )
    critic = trainer.actor_critic.value_model
    before = weights(critic)
    trainer.train()
    changed = {name for name, p in critic.named_parameters() if not p.equal(before[name])}
    assert changed
    assert all("lora_" in name or "score" in name for name in changed)


def loaded_adapter(folder):
    """The directory of an adapter that has been trained before."""
    base, shape = folder / "base", LoraConfig(**LORA, init_lora_weights=False)
    tiny_model("llama").save_pretrained(base)
    load_causal_lm(str(base), peft_config=shape).save_pretrained(str(folder / "adapter"))
    return str(folder / "adapter")


@pytest.mark.parametrize("form", ["full", "given", "fresh adapter", "loaded adapter"])
def test_the_reference_is_the_policy_at_step_0(tmp_path, form):
    """KL is exactly 0 in the first rollout and not in the second."""
    parts = {"model": tiny_model("llama")}
    if form == "given":
        parts["ref_model"] = tiny_model("llama")
    elif form == "fresh adapter":
        parts["peft_config"] = LoraConfig(**LORA)
    elif form == "loaded adapter":
        parts["model"] = loaded_adapter(tmp_path)
    trainer = trainer_of(tmp_path, parts=parts, learning_rate=0.05)
    trainer.train()
    for name in ("objective/kl", "objective/kl_k3"):
        first, _, second, _ = logged(trainer, name)
        assert first == 0.0
        assert abs(second) > 1e-4


def test_another_reference_is_another_kl(tmp_path):
    trainer = trainer_of(tmp_path, parts={"ref_model": tiny_model("llama", seed=5)}, total_episodes=4)
    trainer.train()
    assert logged(trainer, "objective/kl_k3")[0] > 0.1


def test_refused_arguments(tmp_path):
    from datasets import Dataset

    model, stream = tiny_model("llama"), Dataset.from_dict({"prompt": TEXTS}).to_iterable_dataset()
    cases = [
        ({"model": model, "ref_model": model}, ValueError, "ref_model=None for a frozen copy"),
        ({"data_collator": list}, ValueError, "leave it out"),
        ({"reward_funcs": None}, ValueError, "needs something that scores"),
        ({"train_dataset": iter(TEXTS)}, (ValueError, TypeError), "train_dataset"),
        (
            {"train_dataset": stream},
            ValueError,
            "train_dataset is a stream; .* pass a data set with a length",
        ),
        ({"processing_class": 3}, TypeError, "must be a tokenizer"),
        ({"reward_funcs": lambda answers: answers}, ValueError, "needs the argument 'answers'"),
    ]
    for parts, error, message in cases:
        with pytest.raises(error, match=message):
            trainer_of(tmp_path, parts=parts)


def test_columns_and_chats_reach_the_rewards(tmp_path):
    from datasets import Dataset

    seen = []

    def reward(prompts, completions, completion_ids, answer, trainer_state, **_):
        seen.append((prompts, completions, completion_ids, answer, trainer_state.global_step))
        return [float(a) for a in answer]

    data = Dataset.from_dict({"prompt": CHATS, "answer": list(range(len(CHATS)))})
    trainer = trainer_of(tmp_path, parts={"train_dataset": data, "reward_funcs": reward})
    trainer.train()
    assert [step for *_, step in seen] == [0, 2]
    prompts, completions, ids, answer, _ = seen[-1]
    assert [CHATS[i] for i in answer] == prompts
    assert all(said[0]["role"] == "assistant" for said in completions)
    assert [len(row) for row in ids] == trainer.rollout.loss_mask.sum(1).tolist()
    assert trainer.rollout.scores.tolist() == [float(a) for a in answer] == trainer.rollout.row.tolist()


def test_per_token_rewards_land_on_their_tokens(tmp_path):
    """Whatever concerns the whole response, a missing end too, lands on the last token."""

    def each(completion_ids, **_):
        return [[0.1 * i for i in range(len(ids))] for ids in completion_ids]

    def whole(completions, **_):
        return [5.0] * len(completions)

    trainer = trainer_of(
        tmp_path,
        parts={"model": stops_often(tiny_model("llama"), 0.15), "reward_funcs": [each, whole]},
        kl_coef=0.0,
        missing_eos_penalty=2.0,
        reward_scale=3.0,
    )
    rollout = trainer.next_rollout()
    for rewards, mask, finished in zip(rollout.rewards, rollout.loss_mask, rollout.finished, strict=True):
        expected = [0.3 * i for i in range(int(mask.sum()))]
        expected[-1] += 3.0 * (5.0 - 2.0 * (not finished))
        assert rewards[mask].tolist() == pytest.approx(expected, abs=1e-5)
        assert (rewards[~mask] == 0).all()
    assert len(set(rollout.finished.tolist())) == 2


def test_the_penalty_for_a_missing_end(tmp_path):
    """Subtracted once from every response that was cut off, and from no other."""
    found = []
    for penalty in (None, 1.5):
        trainer = trainer_of(
            tmp_path, parts={"model": stops_often(tiny_model("llama"), 0.15)}, missing_eos_penalty=penalty
        )
        found.append(trainer.next_rollout())
    without, given = found
    assert len(set(given.finished.tolist())) == 2
    torch.testing.assert_close(given.scores, without.scores - 1.5 * (~given.finished).float())


@pytest.mark.parametrize(
    ("args", "expected"),
    [({}, {1, 4, 9}), ({"stop_token": "eos"}, {1}), ({"stop_token_id": 7}, {7})],
)
def test_what_ends_a_response(tmp_path, args, expected):
    """By default every end that tokenizer, generation config and chat template know."""
    model = tiny_model("llama")
    model.generation_config.eos_token_id = [9]
    trainer = trainer_of(tmp_path, parts={"model": model}, **args)
    assert trainer.collector.means.sampling.stop_ids == expected


@pytest.mark.parametrize("length", [1, 2])
def test_very_short_responses(tmp_path, length):
    """One token at most, and all rows ended by their first token: finite everywhere, and it learns."""
    model = stops_often(tiny_model("llama"), 1.0)
    before = weights(model)
    trainer = trainer_of(tmp_path, parts={"model": model}, response_length=length, whiten_rewards=True)
    trainer.train()
    assert trainer.rollout.loss_mask.sum(1).tolist() == [1] * 4
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert moved(before, model)


def test_the_learning_rate_is_constant_within_a_rollout(tmp_path):
    trainer = trainer_of(
        tmp_path, lr_scheduler_type="linear", learning_rate=1.0, optim="sgd", max_grad_norm=1e-6
    )
    trainer.train()
    assert logged(trainer, "lr") == pytest.approx([1.0, 1.0, 0.5, 0.5])
    trainer = trainer_of(tmp_path, value_learning_rate=0.5, learning_rate=0.25)
    trainer.train()
    critic, policy = trainer.actor_critic.critic_parameters(), trainer.actor_critic.policy_parameters()
    rates = {id(p): g["lr"] for g in trainer.optimizer.param_groups for p in g["params"]}
    assert {rates[id(p)] for p in critic} == {0.5}
    assert {rates[id(p)] for p in policy} == {0.25}


def test_the_kl_coefficient_follows_its_target(tmp_path):
    """Ziegler et al. 2019: ×(1 + clip(KL/target − 1, ±0.2) · rows / horizon) after each rollout."""
    trainer = trainer_of(
        tmp_path,
        parts={"ref_model": tiny_model("llama", seed=5)},
        kl_estimator="k3",
        kl_target=1e-3,
        kl_horizon=8,
        kl_coef=0.5,
        total_episodes=12,
        num_ppo_epochs=1,
    )
    trainer.train()
    assert logged(trainer, "objective/kl_coef") == pytest.approx([0.5, 0.5 * 1.1, 0.5 * 1.1**2])


def test_a_rollout_is_left_early_when_the_policy_has_moved_too_far(tmp_path):
    trainer = trainer_of(tmp_path, early_stop_kl=1e-9, num_ppo_epochs=4, total_episodes=12)
    trainer.train()
    # The first step of a rollout is taken at ratio 1; the second one shows the distance, and is the last.
    assert trainer.state.global_step == 3 * 2
    assert logged(trainer, "episode") == [4, 4, 8, 8, 12, 12]


def test_an_evaluation_reports_what_users_compute(tmp_path):
    def metrics(prompts, completions, scores, kind):
        assert len(prompts) == len(completions) == len(scores) == len(kind) == 3
        return {"of_kind_a": sum(s for s, k in zip(scores, kind, strict=True) if k == "a")}

    held_out = [{"prompt": text, "kind": kind} for text, kind in zip(TEXTS[:3], "aba", strict=True)]
    data = [{"prompt": text, "kind": "b"} for text in TEXTS]
    trainer = trainer_of(
        tmp_path,
        parts={"eval_dataset": held_out, "train_dataset": data, "compute_metrics": metrics},
        missing_eos_penalty=1.0,
    )
    found = trainer.evaluate()
    assert found == {k: v for k, v in trainer.evaluate().items() if k in found}, (
        "the same draws at every step"
    )
    assert found["eval_objective/kl"] == found["eval_objective/kl_k3"] == 0.0
    assert found["eval_objective/scores"] == pytest.approx(
        found["eval_rewards/letters/mean"] - found["eval_response/truncated"]
    )
    assert "eval_of_kind_a" in found


def test_evaluation_adds_nothing_to_what_training_logs(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.evaluate()
    assert trainer.meter.means() == {}


def test_a_hub_that_cannot_be_reached_is_found_out_at_once(tmp_path):
    with pytest.raises(Exception, match="(?i)offline|connect|token|reach"):
        trainer_of(tmp_path, push_to_hub=True, hub_model_id="nobody/nothing")


def test_the_users_model_keeps_its_settings(tmp_path):
    """Config, generation config and the reward model come out as they went in."""
    model, reward = tiny_model("llama"), tiny_classifier("llama", seed=2)
    model.generation_config.top_p = 0.9
    before = copy.deepcopy(
        (model.config.to_dict(), model.generation_config.to_dict(), reward.config.to_dict())
    )
    frozen = weights(reward)
    trainer_of(tmp_path, parts={"model": model, "reward_model": reward, "reward_funcs": letters}).train()
    assert (model.config.to_dict(), model.generation_config.to_dict(), reward.config.to_dict()) == before
    assert not moved(frozen, reward)
