"""The win rate at evaluations: which answers are compared, and that it chooses the checkpoint."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import GenerationConfig, TrainerCallback

import trellis
from tests.builders import tiny_model, tiny_tokenizer
from tests.ranks import run_ranks
from tests.trainers.dpo_runs import dpo, pairs
from tests.trainers.group_runs import build
from tests.trainers.ppo_runs import TEXTS, trainer_of
from tests.trainers.sft_runs import sft
from trellis import WinRateCallback
from trellis.judges import OrderedJudge
from trellis.monitor import read_history

PROMPTS = [{"prompt": text} for text in TEXTS[:6]]


class Script(OrderedJudge):
    """In its n-th judgement the policy's answer wins with the n-th probability; it keeps what it was shown."""

    def __init__(self, *chances, both_orders=False):
        super().__init__(both_orders=both_orders)
        self.chances, self.calls = list(chances), []

    def judge(self, prompts, completions, shuffle_order=True, return_scores=False):
        self.calls.append((list(prompts), [list(pair) for pair in completions]))
        return super().judge(prompts, completions, shuffle_order=False, return_scores=return_scores)

    def ask(self, asked):
        return [self.chances[min(len(self.calls), len(self.chances)) - 1]] * len(asked)


class Down(Script):
    """Its server does not answer."""

    def ask(self, asked):
        raise ConnectionError("no usable answer from the judge")


EVERY = {"eval_strategy": "steps", "eval_steps": 1, "max_steps": 3}
BEST = {
    **EVERY,
    "save_strategy": "steps",
    "save_steps": 1,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_win_rate",
}


def trainer_for(method, folder, **args):
    held_out = {"eval_dataset": PROMPTS}
    if method == "SFT":
        rows = [{"prompt": text, "completion": " is very good ."} for text in TEXTS]
        return sft(folder, rows, trainer={"eval_dataset": rows[:6]}, max_length=24, **args)
    if method == "DPO":
        return dpo(folder, trainer={"eval_dataset": pairs(6, seed=5)}, max_completion_length=6, **args)
    if method == "PPO":
        args.pop("max_steps")
        return trainer_of(folder, parts=held_out, total_episodes=12, num_ppo_epochs=1, **args)
    return build(method, folder, parts=held_out, **args)


@pytest.mark.parametrize("method", ["SFT", "DPO", "PPO", "GRPO"])
def test_the_best_checkpoint_is_chosen_by_win_rate(method, tmp_path):
    judge = Script(0.2, 0.9, 0.4)
    trainer = trainer_for(method, tmp_path, **BEST)
    trainer.add_callback(WinRateCallback(judge, trainer))
    trainer.train()
    found = [log for log in trainer.state.log_history if "eval_win_rate" in log]
    assert [log["step"] for log in found] == [1, 2, 3]
    ties = [log["eval_win_rate_ties"] / 6 / 2 for log in found]
    won = [0, 1, 0]
    assert [log["eval_win_rate"] for log in found] == pytest.approx(
        [tie + win * (1 - 2 * tie) for tie, win in zip(ties, won, strict=True)]
    )
    assert all(log["eval_win_rate_low"] <= log["eval_win_rate"] <= log["eval_win_rate_high"] for log in found)
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    policy = getattr(trainer, "policy", trainer.model)
    saved = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert all(torch.equal(saved[name], x) for name, x in policy.state_dict().items() if name in saved)
    assert [r["eval_win_rate"] for r in read_history(tmp_path) if "eval_win_rate" in r] == [
        log["eval_win_rate"] for log in found
    ]
    tables = sorted(path.stem for path in (tmp_path / "completions").glob("win_rate_0*"))
    assert tables == ["win_rate_00001", "win_rate_00002", "win_rate_00003"]


def on_a_rank(folder):
    """This rank's figures, whether its judge was asked, its best checkpoint and its weights."""
    judge = Script(0.9, 0.2)
    trainer = trainer_for("DPO", folder, **{**BEST, "max_steps": 2, "learning_rate": 0.1})
    trainer.add_callback(WinRateCallback(judge, trainer))
    trainer.train()
    rates = [log["eval_win_rate"] for log in trainer.state.log_history if "eval_win_rate" in log]
    best = trainer.state.best_model_checkpoint
    return rates, len(judge.calls), best, trainer.accelerator.unwrap_model(trainer.model).state_dict()


def test_ranks_share_the_work_and_the_verdict(tmp_path):
    (rates, asked, best, weights), other = run_ranks(on_a_rank, folder=str(tmp_path))
    assert rates[0] > rates[1]
    assert (other[0], other[2]) == (rates, best)
    assert (asked, other[1]) == (2, 0)
    assert best == str(tmp_path / "checkpoint-1")
    saved = load_file(tmp_path / "checkpoint-1" / "model.safetensors")
    for found in (weights, other[3]):
        assert all(torch.equal(saved[name], found[name]) for name in saved)
    prompts = json.loads((tmp_path / "completions" / "win_rate_reference.json").read_text())["prompts"]
    assert len(prompts) == 6


def test_an_unchanged_policy_ties_and_nobody_is_asked(tmp_path):
    judge = Script(1.0)
    trainer = trainer_for("DPO", tmp_path, **EVERY, learning_rate=0.0)
    before = {name: x.clone() for name, x in trainer.model.state_dict().items()}
    trainer.add_callback(WinRateCallback(judge, trainer))
    trainer.train()
    assert [log["eval_win_rate"] for log in trainer.state.log_history if "eval_win_rate" in log] == [0.5] * 3
    assert judge.calls == []
    assert all(torch.equal(before[name], x) for name, x in trainer.model.state_dict().items())


def test_a_soft_judge_gives_the_mean_probability(tmp_path):
    trainer = trainer_for("DPO", tmp_path, **EVERY, learning_rate=0.1)
    trainer.add_callback(WinRateCallback(Script(0.7), trainer, use_soft_judge=True))
    trainer.train()
    last = [log for log in trainer.state.log_history if "eval_win_rate" in log][-1]
    ties = last["eval_win_rate_ties"] / 6
    assert ties < 1
    assert last["eval_avg_win_prob"] == pytest.approx(0.7 * (1 - ties) + 0.5 * ties)
    assert last["eval_win_rate"] == pytest.approx(1 - ties / 2)


def test_prompts_and_answers_are_what_was_asked_for(tmp_path):
    judge = Script(1.0)
    trainer = trainer_for("DPO", tmp_path, **EVERY, learning_rate=0.1)
    greedy = GenerationConfig(max_new_tokens=4)
    chat = [{"prompt": [{"role": "user", "content": text}]} for text in TEXTS[:3]]
    callback = WinRateCallback(judge, trainer, greedy, num_prompts=2, dataset=chat)
    assert callback.sampling.greedy
    assert callback.sampling.max_new_tokens == 4
    trainer.add_callback(callback)
    trainer.train()
    prompts, shown = judge.calls[-1]
    assert prompts == [row["prompt"] for row in chat[:2]][: len(prompts)]
    reference = tiny_model("llama")
    ids = trainer.processing_class.apply_chat_template(
        prompts[0], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    said = reference.generate(**ids, max_new_tokens=4, do_sample=False)[0, ids["input_ids"].shape[1] :]
    kept = json.loads((tmp_path / "completions" / "win_rate_reference.json").read_text())["answers"]
    assert kept[0] == tiny_tokenizer().decode(said, skip_special_tokens=True)
    assert shown[0][1] in kept


def test_a_resumed_run_compares_with_the_same_answers(tmp_path):
    def run(folder, **args):
        judge = Script(1.0)
        trainer = trainer_for("SFT", folder, **{**EVERY, "save_strategy": "steps", "save_steps": 1, **args})
        trainer.add_callback(WinRateCallback(judge, trainer))
        return trainer, judge

    trainer, whole = run(tmp_path)
    trainer.train()
    trainer, rest = run(tmp_path)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert rest.calls == whole.calls[2:]


def test_a_judge_that_is_down_costs_an_evaluation_and_not_the_run(tmp_path, caplog):
    trainer = trainer_for("DPO", tmp_path, **EVERY, learning_rate=0.1)
    trainer.add_callback(WinRateCallback(Down(1.0), trainer))
    trainer.train()
    found = [log["eval_win_rate"] for log in trainer.state.log_history if "eval_win_rate" in log]
    assert math.isnan(found[-1])
    assert "step 3 has no win rate: no usable answer" in caplog.text


def test_several_eval_sets_are_judged_on_the_first(tmp_path):
    judge = Script(1.0)
    sets = {"a": pairs(3, seed=5), "b": pairs(3, seed=6)}
    trainer = dpo(
        tmp_path, trainer={"eval_dataset": sets}, max_completion_length=6, **EVERY, learning_rate=0.1
    )
    trainer.add_callback(WinRateCallback(judge, trainer))
    found = trainer.evaluate()
    assert found["eval_win_rate"] == 0.5
    assert "eval_b_loss" in found
    trainer.train()
    assert len([log for log in trainer.state.log_history if "eval_win_rate" in log]) == 3


def test_what_cannot_be_answered_is_said(tmp_path):
    trainer = dpo(tmp_path)
    with pytest.raises(ValueError, match="has no eval_dataset; pass WinRateCallback"):
        WinRateCallback(Script(1.0), trainer)
    texts = sft(tmp_path, trainer={"eval_dataset": ["a text", "another one"]})
    with pytest.raises(ValueError, match="row 0 of the eval_dataset has no prompt"):
        WinRateCallback(Script(1.0), texts)
    with pytest.raises(ValueError, match="num_prompts must be at least 1"):
        WinRateCallback(Script(1.0), trainer, num_prompts=0, dataset=PROMPTS)
    with pytest.raises(ValueError, match="num_beams=2"):
        WinRateCallback(Script(1.0), trainer, GenerationConfig(num_beams=2), dataset=PROMPTS)


def test_the_name_has_trls_path_too():
    from trellis.experimental.winrate_callback import WinRateCallback as found

    assert found is trellis.WinRateCallback
    assert issubclass(found, TrainerCallback)
