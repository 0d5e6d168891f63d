"""No dead option: every field that PPOConfig adds changes something that can be seen, or is refused with what to write."""

from dataclasses import fields

import pytest
import torch
from peft import LoraConfig

from tests.builders import tiny_model, tiny_tokenizer
from tests.trainers.ppo_runs import TEXTS, letters, logged, stops_often, trainer_of
from trellis import PPOConfig
from trellis.models import load_causal_lm
from trellis.trainers.config import TrellisConfig

CPU = {"use_cpu": True}
EFFECTS = {
    # name: (the option's values, other options of both runs); both runs train, and their weights or rollouts must differ
    "num_ppo_epochs": ({"num_ppo_epochs": 3}, {}),
    "num_mini_batches": ({"num_mini_batches": 2}, {}),
    "total_episodes": ({"total_episodes": 4}, {}),
    "response_length": ({"response_length": 3}, {}),
    "stop_token": ({"stop_token": "eos"}, {}),
    "stop_token_id": ({"stop_token_id": 7}, {}),
    "temperature": ({"temperature": 0.5}, {}),
    "top_k": ({"top_k": 3}, {}),
    "top_p": ({"top_p": 0.3}, {}),
    "min_p": ({"min_p": 0.5}, {}),
    "missing_eos_penalty": ({"missing_eos_penalty": 1.0}, {}),
    "reward_weights": ({"reward_weights": [-3.0]}, {}),
    "reward_scale": ({"reward_scale": 5.0}, {}),
    "reward_clip": ({"reward_clip": 0.05}, {}),
    "whiten_rewards": ({"whiten_rewards": True}, {}),
    "kl_coef": ({"kl_coef": 3.0}, {}),
    "kl_estimator": ({"kl_estimator": "k3"}, {"kl_coef": 1.0}),
    "kl_target": ({"kl_target": 1e-3}, {"kl_coef": 1.0, "kl_horizon": 10, "total_episodes": 16}),
    "kl_horizon": ({"kl_horizon": 10}, {"kl_target": 1e-3, "kl_coef": 1.0, "total_episodes": 16}),
    "early_stop_kl": ({"early_stop_kl": 1e-9}, {"num_ppo_epochs": 3}),
    "cliprange": ({"cliprange": 10.0}, {}),
    "dual_clip": ({"dual_clip": 1.001}, {"cliprange": 1e-3, "learning_rate": 0.05, "num_ppo_epochs": 4}),
    "vf_coef": ({"vf_coef": 5.0}, {}),
    "cliprange_value": ({"cliprange_value": 1e-6}, {"vf_coef": 5.0}),
    "entropy_coef": ({"entropy_coef": 1.0}, {}),
    "gamma": ({"gamma": 0.1}, {}),
    "lam": ({"lam": 0.1}, {}),
    "value_learning_rate": ({"value_learning_rate": 0.1}, {"vf_coef": 1.0}),
    "value_warmup_steps": ({"value_warmup_steps": 2}, {}),
}
ELSEWHERE = {
    "exp_name": "test_the_experiments_name_names_the_run",
    "reward_model_path": "test_the_scripts_fields_are_read_by_the_command_line",
    "sft_model_path": "test_the_scripts_fields_are_read_by_the_command_line",
    "model_adapter_name": "test_adapters_by_name",
    "ref_adapter_name": "test_adapters_by_name",
    "dataset_num_proc": "test_data_may_be_prepared_by_several_processes",
    "on_reward_error": "test_failures_are_raised_or_counted",
    "reward_timeout": "test_failures_are_raised_or_counted",
    "local_rollout_forward_batch_size": "test_rows_at_once_change_the_work_and_not_the_result",
    "num_sample_generations": "test_as_many_tables_as_asked",
    "ds3_gather_for_generation": "test_refused",
    "num_total_batches": "test_sizes_are_written_back",
    "micro_batch_size": "test_sizes_are_written_back",
    "local_batch_size": "test_sizes_are_written_back",
    "batch_size": "test_sizes_are_written_back",
    "local_mini_batch_size": "test_sizes_are_written_back",
    "mini_batch_size": "test_sizes_are_written_back",
}


AHEAD = {"rollout_devices", "rollout_staleness", "staleness_weight_max"}
"""These have a file of their own, test_ahead.py."""


def test_every_field_is_in_one_of_the_tables():
    """A new field needs a row here: something must differ when it is set."""
    own = {f.name for f in fields(PPOConfig)} - {f.name for f in fields(TrellisConfig)}
    assert own == set(EFFECTS) | set(ELSEWHERE) | AHEAD
    assert not set(EFFECTS) & set(ELSEWHERE)
    assert set(ELSEWHERE.values()) <= set(globals())


def outcome(folder, **args):
    """All trained weights after a run of responses of many lengths, half of which end."""
    trainer = trainer_of(folder, parts={"model": stops_often(tiny_model("llama"), 0.15)}, **args)
    trainer.train()
    return torch.cat([p.detach().flatten() for p in trainer.actor_critic.parameters()])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The outcome without the option, by the other options."""
    known = {}

    def found(others):
        key = str(sorted(others.items()))
        if key not in known:
            known[key] = outcome(tmp_path_factory.mktemp("plain"), **others)
        return known[key]

    return found


@pytest.mark.parametrize("name", EFFECTS)
def test_the_option_has_an_effect(tmp_path, plain, name):
    changed, others = EFFECTS[name]
    assert not outcome(tmp_path, **{**others, **changed}).equal(plain(others))


def test_the_same_options_have_the_same_effect(tmp_path, plain):
    assert outcome(tmp_path).equal(plain({})), "otherwise the tests above would show nothing"


def test_failures_are_raised_or_counted(tmp_path):
    def broken(completions, **_):
        return [float("inf")] + [1.0] * (len(completions) - 1)

    parts = {"reward_funcs": [broken, letters]}
    with pytest.raises(ValueError, match="broken"):
        trainer_of(tmp_path, parts=parts).train()
    trainer = trainer_of(tmp_path, parts=parts, on_reward_error="skip", reward_timeout=60.0)
    trainer.train()
    assert logged(trainer, "rewards/broken/failed")[-1] == 1 / 4


def test_the_experiments_name_names_the_run(tmp_path):
    assert PPOConfig(exp_name="mine", seed=3, output_dir=str(tmp_path), **CPU).run_name == "mine__3"


def test_the_scripts_fields_are_read_by_the_command_line():
    """`trellis ppo` and the scripts take policy and reward model from these fields."""
    from pathlib import Path

    import trellis

    read = "".join(p.read_text() for p in Path(trellis.__file__).parent.joinpath("cli").glob("*.py"))
    assert '(args, "sft_model_path"' in read
    assert ".reward_model_path" in read


def test_adapters_by_name(tmp_path):
    """One adapter is trained, the other one is the reference and stays."""
    shape = LoraConfig(
        r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False
    )
    model = load_causal_lm(tiny_model("llama"), peft_config=shape)
    model.add_adapter("other", shape)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    trainer = trainer_of(
        tmp_path,
        parts={"model": model},
        model_adapter_name="default",
        ref_adapter_name="other",
        total_episodes=4,
    )
    trainer.train()
    changed = {n for n, p in model.named_parameters() if not p.equal(before[n])}
    assert changed == {n for n in before if ".default." in n}
    assert logged(trainer, "objective/kl_k3")[0] > 0


def test_data_may_be_prepared_by_several_processes(tmp_path):
    from datasets import Dataset

    data = Dataset.from_dict({"prompt": TEXTS})
    one, two = (
        trainer_of(tmp_path, parts={"train_dataset": data}, dataset_num_proc=n).train_dataset
        for n in (None, 2)
    )
    assert one["prompt_ids"] == two["prompt_ids"]
    with pytest.raises((ValueError, TypeError)):
        trainer_of(tmp_path, parts={"train_dataset": data}, dataset_num_proc=-1)


def test_rows_at_once_change_the_work_and_not_the_result(tmp_path):
    calls, found = [], []
    for rows in (1, 64):
        model = stops_often(tiny_model("llama"))
        count = [0]
        model.model.register_forward_pre_hook(lambda *_, count=count: count.__setitem__(0, count[0] + 1))
        rollout = trainer_of(
            tmp_path, parts={"model": model}, local_rollout_forward_batch_size=rows
        ).next_rollout()
        calls.append(count[0])
        found.append(rollout)
    assert calls[0] >= calls[1] + 9, "three prompts, logps and references more, and their steps"
    assert found[0].input_ids.equal(found[1].input_ids)
    torch.testing.assert_close(found[0].old_logps, found[1].old_logps)


@pytest.mark.parametrize(("asked", "rollouts"), [(0, 3), (1, 3), (2, 3), (3, 3), (10, 3)])
def test_as_many_tables_as_asked(tmp_path, capsys, asked, rollouts):
    trainer = trainer_of(
        tmp_path,
        num_sample_generations=asked,
        total_episodes=4 * rollouts,
        num_ppo_epochs=1,
        logging_steps=100,
    )
    shown = [index for index in range(rollouts) if trainer.held_out.due(index)]
    assert len(shown) == min(asked, rollouts)
    trainer.train()
    printed = capsys.readouterr().out
    assert all((f"rollout {index}, step" in printed) == (index in shown) for index in range(rollouts))


def test_sizes_are_written_back(tmp_path):
    args = PPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=6,
        num_mini_batches=3,
        total_episodes=30,
        **CPU,
    )
    args.schedule(50)
    assert (args.num_total_batches, args.micro_batch_size, args.local_batch_size) == (3, 2, 12)
    assert (args.batch_size, args.local_mini_batch_size, args.mini_batch_size) == (12, 4, 4)
    for name in ELSEWHERE:
        if ELSEWHERE[name] == "test_sizes_are_written_back":
            wrong = PPOConfig(output_dir=str(tmp_path), **{name: 7}, **CPU)
            with pytest.raises(ValueError, match=f"{name}=7 was given, but the other arguments make it"):
                wrong.schedule(50)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"stop_token": "eos", "stop_token_id": 3}, "leave one of them out"),
        ({"stop_token": "</s>"}, "is none of eos"),
        ({"kl_estimator": "k2"}, "is none of k1, k3"),
        ({"dual_clip": 1.0}, "dual_clip must be above 1"),
        ({"kl_target": 0.0}, "kl_target must be above 0"),
        ({"lam": 1.5}, "lam must be from 0 to 1"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"response_length": 0}, "response_length must be above 0"),
        ({"value_warmup_steps": -1}, "value_warmup_steps must be at least 0"),
        ({"ds3_gather_for_generation": False}, "leave ds3_gather_for_generation out"),
        ({"metric_for_best_model": "eval_loss"}, "objective/scores"),
    ],
)
def test_refused(tmp_path, args, message):
    with pytest.raises(ValueError, match=message):
        PPOConfig(output_dir=str(tmp_path), **args, **CPU)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"stop_token_id": 320}, "none of the model's tokens 0 … 319"),
        ({"num_mini_batches": 3}, "cannot be cut into 3 equal minibatches"),
        ({"response_length": 600}, "more than the model's"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\]"),
        ({"reward_weights": [1.0, 2.0]}, "weights"),
    ],
)
def test_refused_before_anything_is_sampled(tmp_path, args, message):
    model, tokenizer = tiny_model("gpt2"), tiny_tokenizer()
    if "stop_token_id" in args:
        args = {"stop_token_id": model.config.vocab_size}
        message = f"none of the model's tokens 0 … {model.config.vocab_size - 1}"
    with pytest.raises(ValueError, match=message):
        trainer_of(tmp_path, parts={"model": model, "processing_class": tokenizer}, **args)


def test_a_warm_up_leaves_the_policy_as_it_is(tmp_path):
    """The head learns, the trunk that it shares with the policy does not."""
    model = tiny_model("llama")
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    trainer = trainer_of(tmp_path, parts={"model": model}, value_warmup_steps=4)
    trainer.train()
    assert trainer.state.global_step == 4
    assert torch.cat([p.detach().flatten() for p in model.parameters()]).equal(before)
    assert trainer.actor_critic.value_head.weight.abs().max() > 0
