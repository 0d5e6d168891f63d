"""No dead option: every field of GRPOConfig and RLOOConfig changes something that can be seen, or is tested elsewhere."""

from dataclasses import fields

import pytest

from tests.trainers.group_runs import build, logged, outcome, rollout_of
from trellis import GRPOConfig, RLOOConfig
from trellis.trainers.config import TrellisConfig

AGAIN = {"num_iterations": 2, "learning_rate": 0.05, "max_steps": 4}
KL = {"beta": 1.0}
EFFECTS = {
    # name: (the option's values, other options of both runs); both runs train, and their weights must differ
    "num_generations": ({"num_generations": 2}, {}),
    "max_completion_length": ({"max_completion_length": 3}, {}),
    "max_prompt_length": ({"max_prompt_length": 2}, {}),
    "shuffle_dataset": ({"shuffle_dataset": False}, {}),
    "generation_batch_size": ({"generation_batch_size": 16}, {}),
    "steps_per_generation": ({"steps_per_generation": 4}, {}),
    "temperature": ({"temperature": 0.5}, {}),
    "top_k": ({"top_k": 3}, {}),
    "top_p": ({"top_p": 0.3}, {}),
    "min_p": ({"min_p": 0.5}, {}),
    "repetition_penalty": ({"repetition_penalty": 5.0}, {}),
    "generation_kwargs": ({"generation_kwargs": {"top_k": 3}}, {}),
    "beta": ({"beta": 1.0}, {}),
    "num_iterations": ({"num_iterations": 2}, {}),
    "epsilon": ({"epsilon": 1e-3}, AGAIN),
    "epsilon_high": ({"epsilon_high": 1e-3}, AGAIN),
    "reward_weights": ({"reward_weights": [-3.0]}, {}),
    "mask_truncated_completions": ({"mask_truncated_completions": True}, {}),
    "sync_ref_model": ({"sync_ref_model": True, "ref_model_sync_steps": 1}, KL),
    "ref_model_mixup_alpha": (
        {"ref_model_mixup_alpha": 0.1},
        {**KL, "sync_ref_model": True, "ref_model_sync_steps": 1},
    ),
    "ref_model_sync_steps": ({"ref_model_sync_steps": 1}, {**KL, "sync_ref_model": True}),
}
OF_GRPO = {
    "loss_type": ({"loss_type": "grpo"}, {}),
    "importance_sampling_level": ({"importance_sampling_level": "sequence"}, AGAIN),
    "delta": ({"delta": 1.002}, {**AGAIN, "steps_per_generation": 4, "epsilon_high": 1e-3}),
    "sapo_temperature_pos": ({"sapo_temperature_pos": 5.0}, {**AGAIN, "loss_type": "sapo"}),
    "sapo_temperature_neg": ({"sapo_temperature_neg": 5.0}, {**AGAIN, "loss_type": "sapo"}),
    "vespo_k_pos": ({"vespo_k_pos": 5.0}, {**AGAIN, "loss_type": "vespo"}),
    "vespo_lambda_pos": ({"vespo_lambda_pos": 0.1}, {**AGAIN, "loss_type": "vespo"}),
    "vespo_k_neg": ({"vespo_k_neg": 1.0}, {**AGAIN, "loss_type": "vespo"}),
    "vespo_lambda_neg": ({"vespo_lambda_neg": 0.1}, {**AGAIN, "loss_type": "vespo"}),
    "scale_rewards": ({"scale_rewards": "none"}, {}),
    "multi_objective_aggregation": ({"multi_objective_aggregation": "normalize_then_sum"}, {}),
    "use_bias_correction_kl": ({"use_bias_correction_kl": True}, {**AGAIN, **KL}),
    "top_entropy_quantile": ({"top_entropy_quantile": 0.3}, {}),
    "entropy_coef": ({"entropy_coef": 1.0}, {}),
    "use_adaptive_entropy": ({"use_adaptive_entropy": True, "entropy_target": 9.0}, {"entropy_coef": 0.1}),
    "entropy_coef_min": (
        {"entropy_coef_min": 0.1},
        {"entropy_coef": 0.1, "use_adaptive_entropy": True, "entropy_target": 0.0},
    ),
    "entropy_coef_max": (
        {"entropy_coef_max": 0.1},
        {"entropy_coef": 0.1, "use_adaptive_entropy": True, "entropy_target": 9.0},
    ),
    "entropy_coef_delta": (
        {"entropy_coef_delta": 0.1},
        {"use_adaptive_entropy": True, "entropy_target": 9.0},
    ),
    "entropy_target": ({"entropy_target": 9.0}, {"use_adaptive_entropy": True, "entropy_coef": 0.1}),
    "off_policy_mask_threshold": ({"off_policy_mask_threshold": 1e-6}, AGAIN),
}
OF_RLOO = {
    "beta": ({"beta": 1.0}, {}),
    "epsilon": ({"epsilon": 0.99}, {**AGAIN, "learning_rate": 1e-3}),
    "normalize_advantages": ({"normalize_advantages": True}, {}),
    "reward_clip_range": ({"reward_clip_range": [0.3, 0.5]}, {}),
}
ELSEWHERE = {
    "model_init_kwargs": "tests/trainers/test_group.py",
    "model_adapter_name": "tests/models/test_adapters_training.py",
    "ref_adapter_name": "tests/models/test_adapters_training.py",
    "disable_dropout": "tests/trainers/test_group.py",
    "dataset_num_proc": "tests/trainers/test_group.py",
    "chat_template_kwargs": "tests/trainers/test_group.py",
    "num_generations_eval": "tests/trainers/test_group.py",
    "on_reward_error": "tests/trainers/test_group.py",
    "reward_timeout": "tests/trainers/test_group.py",
    "ds3_gather_for_generation": "tests/trainers/test_group.py",
    "log_completions": "tests/trainers/test_group.py",
    "num_completions_to_print": "tests/monitor/test_completions.py",
    "log_unique_prompts": "tests/monitor/test_completions.py",
    "max_tool_calling_iterations": "tests/agents",
    "rollout_devices": "tests/trainers/test_ahead.py",
    "rollout_staleness": "tests/trainers/test_ahead.py",
}


def own(config):
    """The fields that `config` adds to those that every config has, without those of vLLM (tests/engines)."""
    added = {f.name for f in fields(config)} - {f.name for f in fields(TrellisConfig)}
    return {name for name in added if not name.startswith(("vllm_", "use_vllm"))}


def test_every_field_is_in_one_of_the_tables():
    """A new field needs a row here: something must differ when it is set."""
    both = set(EFFECTS) | set(ELSEWHERE)
    assert own(RLOOConfig) == (both | {*OF_RLOO, "staleness_weight_max"}) - {"max_tool_calling_iterations"}
    assert own(GRPOConfig) == both | set(OF_GRPO)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The outcome without the option, by the other options."""
    known = {}

    def found(method, others):
        key = (method, str(sorted(others.items())))
        if key not in known:
            known[key] = outcome(method, tmp_path_factory.mktemp("plain"), **others)
        return known[key]

    return found


@pytest.mark.parametrize("name", {**EFFECTS, **OF_GRPO})
def test_the_option_has_an_effect(tmp_path, plain, name):
    changed, others = {**EFFECTS, **OF_GRPO}[name]
    assert not outcome("GRPO", tmp_path, **{**others, **changed}).equal(plain("GRPO", others))


@pytest.mark.parametrize("name", OF_RLOO)
def test_the_option_has_an_effect_in_rloo(tmp_path, plain, name):
    changed, others = OF_RLOO[name]
    assert not outcome("RLOO", tmp_path, **{**others, **changed}).equal(plain("RLOO", others))


@pytest.mark.parametrize("method", ["GRPO", "RLOO"])
def test_the_same_options_have_the_same_effect(tmp_path, plain, method):
    assert outcome(method, tmp_path).equal(plain(method, {})), "otherwise the tests above would show nothing"


def test_a_batch_spread_needs_more_than_one_group(tmp_path):
    """scale_rewards="batch" divides every group by the same number."""
    trainer = build("GRPO", tmp_path, scale_rewards="batch")
    rollout, verdict = rollout_of(trainer)
    centred = verdict.total.view(2, 4) - verdict.total.view(2, 4).mean(1, keepdim=True)
    wanted = centred / (verdict.total.std() + 1e-4)
    found = rollout.advantages.gather(1, (rollout.lengths - 1)[:, None])[:, 0]
    assert (found - wanted.flatten()).abs().max() < 1e-5


def test_the_entropy_bonus_follows_its_target(tmp_path):
    """Up by the step below the target, down above it, within its bounds; the first step has nothing to go by."""
    adaptive = {"use_adaptive_entropy": True, "entropy_coef": 0.1, "entropy_coef_delta": 0.03}
    for target, expected in ((9.0, [0.1, 0.13, 0.15]), (0.0, [0.1, 0.07, 0.06])):
        bounds = {"entropy_coef_min": 0.06, "entropy_coef_max": 0.15, "entropy_target": target}
        trainer = build("GRPO", tmp_path, **adaptive, **bounds)
        trainer.train()
        assert logged(trainer, "entropy_coef") == pytest.approx(expected)
