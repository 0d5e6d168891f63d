"""GRPO and RLOO: what their advantages, their masks and their logs say, and what they refuse."""

import math

import pytest
import torch

import trellis
from tests.builders import tiny_model, tiny_tokenizer
from tests.ranks import run_ranks
from tests.trainers.group_runs import TEXTS, build, letters, logged, rollout_of, spaces, stops_often
from trellis import GRPOConfig, GRPOTrainer, RLOOConfig

METHODS = ["GRPO", "RLOO"]
CPU = {"use_cpu": True}


def rows_of(values):
    """[B]: what stands on the first trained token of each row of a [B, T] tensor."""
    return torch.stack([row[row != 0][0] if bool((row != 0).any()) else row[0] for row in values])


def by_hand(rewards, samples, method):
    """Advantages of lists of rewards (None: not applicable), group by group, in Python floats."""
    found = []
    for start in range(0, len(rewards), samples):
        group = rewards[start : start + samples]
        known = [r for r in group if r is not None]
        mean = sum(known) / max(1, len(known))
        spread = math.sqrt(sum((r - mean) ** 2 for r in known) / (len(known) - 1)) if len(known) > 1 else 0.0
        for r in group:
            if r is None or len(known) < 2:
                found.append(0.0)
            elif method == "GRPO":
                found.append((r - mean) / (spread + 1e-4))
            else:
                found.append(r - (sum(known) - r) / (len(known) - 1))
    return found


@pytest.mark.parametrize("method", METHODS)
def test_advantages_with_rewards_that_do_not_apply(tmp_path, method):
    """A completion to which no reward applies is no zero: it stands outside its group."""
    trainer = build(method, tmp_path, parts={"reward_funcs": spaces}, beta=0.0, max_completion_length=8)
    rollout, verdict = rollout_of(trainer)
    assert 0 < int((~verdict.applicable).sum()) < len(rollout)
    rewards = [
        float(r) if applies else None for r, applies in zip(verdict.total, verdict.applicable, strict=True)
    ]
    wanted = by_hand(rewards, 4, method)
    assert max(abs(a - b) for a, b in zip(rows_of(rollout.advantages).tolist(), wanted, strict=True)) < 1e-5


def test_rloo_puts_the_kl_into_the_reward(tmp_path):
    args = {"beta": 0.3, "reward_clip_range": [0.3, 0.5]}  # which bounds the reward, and not the penalty
    trainer = build("RLOO", tmp_path, parts={"ref_model": tiny_model("llama", seed=1)}, **args)
    rollout, verdict = rollout_of(trainer)
    kl = (rollout.old_logps - rollout.ref_logps).sum(1)
    wanted = by_hand((verdict.total.clamp(0.3, 0.5) - 0.3 * kl).tolist(), 4, "RLOO")
    assert max(abs(a - b) for a, b in zip(rows_of(rollout.advantages).tolist(), wanted, strict=True)) < 1e-4
    assert trainer.meter.means()["kl"] == pytest.approx(float(kl.mean()), rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_with_unchanged_weights_nothing_is_clipped_and_the_kl_is_zero(tmp_path, method):
    trainer = build(method, tmp_path, beta=0.1, max_steps=1)
    trainer.train()
    assert logged(trainer, "kl") == [0.0]
    assert logged(trainer, "clip_ratio/region_mean") == [0.0]
    assert logged(trainer, "sampling/logp_difference")[0] < 1e-5


def test_old_log_probs_are_scored_only_where_they_are_needed(tmp_path):
    """One optimizer step per rollout: the policy is still the one that sampled. The result is the same either way."""
    found = {}
    for name, forced in (("needed", True), ("not", False)):
        trainer = build("GRPO", tmp_path, max_steps=2)
        assert not trainer.scores_old
        if forced:
            trainer.__class__ = type("Scoring", (GRPOTrainer,), {"scores_old": True})
        calls = []
        look = trainer.look
        trainer.look = lambda batch, look=look, calls=calls: calls.append(len(batch)) or look(batch)
        trainer.train()
        found[name] = (calls, torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert found["needed"][0] == [8, 8]
    assert found["not"][0] == []
    assert (found["needed"][1] - found["not"][1]).abs().max() < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_what_is_logged_is_what_happened(tmp_path, method):
    model = stops_often(tiny_model("llama"), 0.1)
    trainer = build(method, tmp_path, parts={"model": model, "reward_funcs": [letters, spaces]}, max_steps=1)
    trainer.train()
    rollout, log = trainer.rollout, trainer.state.log_history[0]
    lengths = rollout.loss_mask.sum(1).float()
    ended = lengths[rollout.finished]
    assert 0 < len(ended) < len(lengths)
    wanted = {
        "reward": float(rollout.scores.mean()),
        "reward_std": float(rollout.scores.view(2, 4).std(1).mean()),
        "frac_reward_zero_std": 0.0,
        "completions/mean_length": float(lengths.mean()),
        "completions/min_length": float(lengths.min()),
        "completions/max_length": float(lengths.max()),
        "completions/mean_terminated_length": float(ended.mean()),
        "completions/min_terminated_length": float(ended.min()),
        "completions/max_terminated_length": float(ended.max()),
        "completions/clipped_ratio": float((~rollout.finished).float().mean()),
        "num_tokens": float(rollout.lengths.sum()),
    }
    assert {name: log[name] for name in wanted} == pytest.approx(wanted, rel=1e-5)
    assert {
        "entropy",
        "clip_ratio/low_min",
        "clip_ratio/high_max",
        "rewards/letters/mean",
        "rewards/letters/std",
    } <= set(log)
    assert log["step_time"] > 0
    undeclared = {n for n in log if "/" in n} - {m.name for m in trainer.declared_metrics()}
    assert not undeclared


@pytest.mark.parametrize("method", METHODS)
def test_constant_rewards_are_named(tmp_path, method):
    trainer = build(
        method, tmp_path, parts={"reward_funcs": lambda completions: [1.0] * len(completions)}, beta=0.0
    )
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    assert logged(trainer, "frac_reward_zero_std") == [1.0, 1.0, 1.0]
    assert all(p.equal(b) for p, b in zip(trainer.model.parameters(), before, strict=True))


def test_cut_completions_may_be_left_out(tmp_path):
    parts = {"model": stops_often(tiny_model("llama"), 0.1)}
    rollout, _ = rollout_of(build("GRPO", tmp_path, parts=parts, mask_truncated_completions=True))
    assert 0 < int(rollout.finished.sum()) < len(rollout)
    assert rollout.loss_mask.any(1).equal(rollout.finished)
    assert not rollout.advantages[~rollout.finished].any()
    assert not rollout.old_logps[~rollout.finished].any()


def halves(folder):
    """The weights after two steps of rollouts whose groups do not divide over the ranks."""
    import os

    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    trainer = build(
        "GRPO",
        folder,
        parts={"model": tiny_model("gpt2").double()},
        per_device_train_batch_size=6 // ranks,
        gradient_accumulation_steps=1,
        num_generations=6,
        max_steps=2,
    )
    trainer.train()
    return {n: p.detach() for n, p in trainer.accelerator.unwrap_model(trainer.model).state_dict().items()}


@pytest.mark.slow
def test_a_group_may_lie_on_several_ranks(tmp_path):
    alone = halves(str(tmp_path))
    for weights in run_ranks(halves, 2, folder=str(tmp_path)):
        for name, value in alone.items():
            torch.testing.assert_close(weights[name], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("samples", [2, 3, 4, 6])
def test_any_prompts_samples_and_micro_batch_give_the_same_step(tmp_path, samples):
    """Twelve completions per step: of 12 / samples prompts, `micro` at once."""
    found = {}
    for micro in (12, 6, 4, 3, 1):
        cut = {"per_device_train_batch_size": micro, "gradient_accumulation_steps": 12 // micro}
        parts = {"model": tiny_model("gpt2").double()}
        trainer = build("GRPO", tmp_path, parts=parts, num_generations=samples, max_steps=1, beta=0.1, **cut)
        trainer.train()
        found[micro] = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    assert all((weights - found[12]).abs().max() < 1e-9 for weights in found.values())


def test_the_same_function_gives_the_same_rewards_in_all_three(tmp_path):
    from tests.trainers.ppo_runs import trainer_of
    from trellis.rollout import Completion, Episodes

    trainers = [build(method, tmp_path, parts={"reward_funcs": [letters, spaces]}) for method in METHODS]
    trainers.append(trainer_of(tmp_path, parts={"reward_funcs": [letters, spaces]}))
    said = [Completion([40 + i, 41, 42 + i], [0.0] * 3, [0.0] * 3, "stop") for i in range(8)]
    verdicts = [
        t.collector.judge([t.train_dataset[i] for i in range(8)], Episodes(said)).per_function
        for t in trainers
    ]
    assert len(verdicts[0].unique()) > 4
    assert all(torch.equal(v.nan_to_num(-9.0), verdicts[0].nan_to_num(-9.0)) for v in verdicts)


@pytest.mark.parametrize("method", METHODS)
def test_a_stream_of_prompts(tmp_path, method):
    from datasets import Dataset

    stream = Dataset.from_dict({"prompt": TEXTS}).to_iterable_dataset()
    trainer = build(method, tmp_path, parts={"train_dataset": stream}, max_steps=7)
    trainer.train()
    assert trainer.state.global_step == 7
    assert trainer.rollout.row.unique().tolist() == [12, 13], "twelve prompts: the stream has begun again"
    with pytest.raises(ValueError, match="stream without a length; write max_steps"):
        build(method, tmp_path, parts={"train_dataset": stream}, max_steps=-1)


@pytest.mark.parametrize("method", METHODS)
def test_evaluation_samples_as_many_as_asked(tmp_path, method):
    trainer = build(method, tmp_path, parts={"eval_dataset": TEXTS[:3]}, num_generations_eval=5, beta=0.1)
    before = torch.get_rng_state()
    found = trainer.evaluate()
    assert found == trainer.evaluate()
    assert before.equal(torch.get_rng_state())
    assert {"eval_reward", "eval_reward_std", "eval_kl", "eval_completions/mean_length"} <= set(found)
    asked = []
    trainer.collector.means.rewards.members[0].function = lambda completions, **_: (
        asked.append(len(completions)) or [0.0] * len(completions)
    )
    trainer.evaluate()
    assert asked == [15]


def test_a_table_of_completions_at_each_log(tmp_path):
    from trellis.monitor import read_completions

    def noted(completions, log_extra=None, log_metric=None, **_):
        log_extra("first letter", [text[:1] for text in completions])
        log_metric("mean characters", sum(map(len, completions)) / len(completions))
        return letters(completions)

    trainer = build(
        "GRPO", tmp_path, parts={"reward_funcs": noted}, log_completions=True, logging_steps=2, max_steps=4
    )
    trainer.train()
    tables = sorted((tmp_path / "completions").iterdir())
    assert len(tables) == 2
    rows = read_completions(tmp_path)
    assert len(rows) == 32
    assert {"step", "prompt", "completion", "noted", "advantage", "first letter"} <= set(rows[0])
    assert all(row["first letter"] == row["completion"][:1] for row in rows)
    means = logged(trainer, "mean characters")
    assert means[0] == pytest.approx(sum(len(row["completion"]) for row in rows[:16]) / 16)


def test_failures_are_raised_or_counted(tmp_path):
    def broken(completions, **_):
        return [math.nan] + [1.0] * (len(completions) - 1)

    with pytest.raises(ValueError, match="broken"):
        build("GRPO", tmp_path, parts={"reward_funcs": [broken, letters]}).train()
    trainer = build(
        "GRPO",
        tmp_path,
        parts={"reward_funcs": [broken, letters]},
        on_reward_error="skip",
        reward_timeout=60.0,
    )
    assert trainer.collector.means.rewards.on_error == "skip"
    trainer.train()
    assert logged(trainer, "rewards/broken/failed") == [1 / 8] * 3


def test_dropout_is_left_or_switched_off(tmp_path, caplog):
    rates = {"resid_pdrop": 0.3, "embd_pdrop": 0.3}
    off = build("GRPO", tmp_path, parts={"model": tiny_model("gpt2", **rates)}, disable_dropout=True)
    assert {m.p for m in off.model.modules() if isinstance(m, torch.nn.Dropout)} == {0.0}
    build("GRPO", tmp_path, parts={"model": tiny_model("gpt2", **rates)})  # one step per rollout
    assert "dropout" not in caplog.text
    build("GRPO", tmp_path, parts={"model": tiny_model("gpt2", **rates)}, num_iterations=2)
    build("RLOO", tmp_path, parts={"model": tiny_model("gpt2", **rates)}, beta=0.1)
    assert caplog.text.count("ratios begin around 1") == 2


def test_the_head_in_float32(tmp_path):
    model = tiny_model("llama", tie_word_embeddings=False).bfloat16()
    trainer = build("GRPO", tmp_path, parts={"model": model}, cast_lm_head_to_fp32=True, max_steps=1)
    assert trainer.model.lm_head.weight.dtype == torch.float32
    assert trainer.model.model.embed_tokens.weight.dtype == torch.bfloat16
    trainer.train()
    assert math.isfinite(logged(trainer, "loss")[0])
    with pytest.raises(ValueError, match="tie_word_embeddings=False"):
        build(
            "GRPO",
            tmp_path,
            parts={"model": tiny_model("llama", tie_word_embeddings=True).bfloat16()},
            cast_lm_head_to_fp32=True,
        )


def test_the_chat_template_gets_its_arguments(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{{ mood | default('calm') }} {% for m in messages %}{{ m['content'] }} {% endfor %}"
    )
    chats = [{"prompt": [{"role": "user", "content": text}]} for text in TEXTS]
    parts = {"processing_class": tokenizer, "train_dataset": chats, "model": tiny_model("llama", tokenizer)}
    plain = build("GRPO", tmp_path, parts=dict(parts)).train_dataset[0]["prompt_ids"]
    asked = build("GRPO", tmp_path, parts=dict(parts), chat_template_kwargs={"mood": "wild"}).train_dataset[
        0
    ]["prompt_ids"]
    assert tokenizer.decode(asked).startswith("wild")
    assert tokenizer.decode(plain).startswith("calm")


def test_a_model_by_name_with_its_keywords(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    trainer = GRPOTrainer(
        str(tmp_path / "model"),
        letters,
        GRPOConfig(
            output_dir=str(tmp_path),
            model_init_kwargs={"dtype": "bfloat16"},
            gradient_accumulation_steps=8,
            dataset_num_proc=1,
            **CPU,
        ),
        TEXTS,
    )
    assert trainer.model.dtype == torch.bfloat16


WRONG = {
    "batch": (
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "num_generations": 8},
        "use gradient_accumulation_steps=8",
    ),
    "no divisor": (
        {"num_generations": 3},
        r"use gradient_accumulation_steps=3 \(4 prompts per step\), or num_generations=2",
    ),
    "uneven": (
        {"steps_per_generation": 3, "num_generations": 2},
        "neither divides the other; use generation_batch_size=8 or 16",
    ),
    "twice": ({"steps_per_generation": 2, "generation_batch_size": 16}, "contradict each other"),
    "one": ({"num_generations": 1}, "num_generations=1: expected at least 2"),
    "few prompts": ({"generation_batch_size": 64}, "16 prompts .* only 12"),
    "gather": ({"ds3_gather_for_generation": False}, "sampling needs whole weights"),
    "kwargs": ({"generation_kwargs": {"num_beams": 4}}, "generation_kwargs"),
    "sync": ({"sync_ref_model": True, "beta": 0.0}, "keeps no reference"),
    "timeout": ({"reward_timeout": 0.0}, "reward_timeout"),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", WRONG)
def test_refused_before_anything_is_loaded(tmp_path, method, name):
    changed, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        build(method, tmp_path, **changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"loss_type": "grop"}, "loss_type='grop' is none of .* did you mean 'grpo'"),
        ({"delta": 0.5}, "delta"),
        ({"top_entropy_quantile": 0.0}, "top_entropy_quantile"),
        (
            {"multi_objective_aggregation": "normalize_then_sum", "scale_rewards": "none"},
            "scale_rewards='group'",
        ),
        ({"use_adaptive_entropy": True, "entropy_coef": 2.0}, "entropy_coef_max"),
    ],
)
def test_refused_by_grpo(changed, message):
    with pytest.raises(ValueError, match=message):
        GRPOConfig(**changed, **CPU)


def test_refused_by_rloo():
    with pytest.raises(ValueError, match="the lower first"):
        RLOOConfig(reward_clip_range=[1.0, -1.0], **CPU)


def test_no_reward_no_reference_without_a_use(tmp_path):
    with pytest.raises(ValueError, match="something that scores"):
        build("GRPO", tmp_path, parts={"reward_funcs": None})
    with pytest.raises(ValueError, match="leave ref_model out"):
        build("GRPO", tmp_path, parts={"ref_model": tiny_model("llama", seed=1)}, beta=0.0)


@pytest.mark.parametrize("method", METHODS)
def test_old_names(method):
    config = getattr(trellis, f"{method}Config")
    with pytest.warns(FutureWarning, match="use_liger_loss"):
        config(use_liger_loss=True, **CPU)
    with (
        pytest.warns(FutureWarning, match="vllm_structured_outputs_regex"),
        pytest.raises(ValueError, match="use_vllm"),
    ):
        config(vllm_guided_decoding_regex="a+", **CPU)
