"""Rows 3 and 24 to 30: the first PPO run."""

import time
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

from trellis import PPOConfig, PPOTrainer

from .page import promised
from .parts import ROWS, SHORT, TEXTS, judge, length, policy


def ppo(tokenizer: Any, *, settings: Any = None, **parts: Any) -> PPOTrainer:
    """A short PPO run of a tiny policy rewarded by `length`, each part replaceable."""
    given = {
        "args": PPOConfig("out", **{**SHORT, **(settings or {})}),
        "model": policy(tokenizer) if "model" not in parts else None,
        "processing_class": tokenizer,
        "train_dataset": TEXTS,
        **parts,
    }
    if not {"reward_funcs", "reward_model"} & set(parts):
        given["reward_funcs"] = length
    return PPOTrainer(**given)


def test_row_3_plain_training_arguments_are_enough(tokenizer):
    args = TrainingArguments(
        "out", use_cpu=True, max_steps=2, per_device_train_batch_size=2, disable_tqdm=True
    )
    trainer = ppo(tokenizer, args=args)
    trainer.train()
    assert trainer.state.global_step == 2


@pytest.mark.parametrize(
    ("situation", "name"), [("24", "PPOv2Trainer"), ("24b", "DataCollatorForCompletionOnlyLM")]
)
def test_row_24_what_old_scripts_import_is_one_message(situation, name):
    with pytest.raises(ImportError) as error:
        exec(f"from trellis import {name}")
    assert str(error.value) == promised(situation)


def test_row_24_the_old_quickstarts_config_is_one_message():
    with pytest.raises(TypeError) as error:
        PPOConfig(model_name="gpt2", learning_rate=1.41e-5)
    assert str(error.value) == promised("24c")


def test_row_24_the_old_order_of_arguments_is_one_message(tokenizer):
    model = policy(tokenizer)
    with pytest.raises(TypeError) as error:
        PPOTrainer(PPOConfig("out", **SHORT), model, model, tokenizer)
    assert str(error.value) == promised("24d")


def test_row_24_the_old_keywords_train(tokenizer):
    trainer = PPOTrainer(
        config=PPOConfig("out", **SHORT),
        model=policy(tokenizer),
        ref_model=None,
        tokenizer=tokenizer,
        dataset=TEXTS,
        reward_funcs=length,
    )
    trainer.train()
    assert trainer.state.global_step == 1


@pytest.mark.parametrize(("situation", "method"), [("24e", "step"), ("24f", "generate")])
def test_row_24_the_hand_driven_calls_are_one_message(tokenizer, situation, method):
    with pytest.raises(AttributeError) as error:
        getattr(ppo(tokenizer), method)([torch.tensor([5])], [torch.tensor([6])], [torch.tensor(1.0)])
    assert str(error.value) == promised(situation)


@pytest.mark.parametrize(
    "data",
    [
        TEXTS,
        [{"prompt": text} for text in TEXTS],
        ROWS,
        [{"prompt": [{"role": "user", "content": text}]} for text in TEXTS],
        [{"input_ids": [5, 6, 7]}] * 4,
    ],
    ids=["strings", "prompt", "text", "chats", "input_ids"],
)
def test_row_25_prompts_may_be_texts_chats_or_ids(tokenizer, data):
    def any_length(completions, **columns):
        return [float(len(completion)) for completion in completions]

    trainer = ppo(tokenizer, train_dataset=data, reward_funcs=any_length)
    trainer.train()
    assert trainer.state.global_step == 1


def test_row_26_no_value_model_is_a_head_on_the_policy(tokenizer):
    trainer = ppo(tokenizer)
    assert trainer.actor_critic.value_head is not None
    assert trainer.actor_critic.value_model is None


def test_row_26_the_policy_as_value_model_is_copied(tokenizer):
    model = policy(tokenizer)
    trainer = ppo(tokenizer, model=model, value_model=model)
    trainer.train()
    critic, actor = trainer.actor_critic.critic_parameters(), trainer.actor_critic.policy_parameters()
    assert not {id(p) for p in critic} & {id(p) for p in actor}


def test_row_26_every_model_may_be_a_name(tokenizer, here):
    name, score = policy(tokenizer, here / "policy"), judge(tokenizer, here / "judge")
    trainer = ppo(tokenizer, model=name, ref_model=name, value_model=score, reward_model=score)
    trainer.train()
    assert trainer.state.global_step == 1


def test_row_26_a_model_that_is_not_there_is_one_message(tokenizer):
    with pytest.raises(ValueError, match="no model directory") as error:
        ppo(tokenizer, model="./my-polcy")
    assert str(error.value) == promised("26")


def test_row_26_a_language_model_as_reward_is_one_message(tokenizer, here):
    policy(tokenizer, here / "policy")
    with pytest.raises(ValueError, match="score head would be random") as error:
        ppo(tokenizer, reward_model="policy")
    assert str(error.value) == promised("26b")


@pytest.mark.parametrize("argument", ["reward_funcs", "reward_model"])
def test_row_27_a_function_is_a_reward(tokenizer, argument):
    trainer = ppo(tokenizer, **{argument: length})
    trainer.train()
    assert trainer.state.global_step == 1


def test_row_27_no_reward_at_all_is_one_message(tokenizer):
    with pytest.raises(ValueError, match="something that scores") as error:
        ppo(tokenizer, reward_funcs=None)
    assert str(error.value) == promised("27")


def test_row_27_a_reward_that_needs_a_column_is_one_message_before_sampling(tokenizer):
    def exact(completions, answer):
        return [float(c == a) for c, a in zip(completions, answer, strict=True)]

    with pytest.raises(ValueError, match="needs the argument") as error:
        ppo(tokenizer, reward_funcs=exact)
    assert str(error.value) == promised("27b")


@pytest.mark.parametrize(
    ("situation", "returned"),
    [("27c", [1.0]), ("27d", 1.0), ("27e", [float("nan"), 1.0]), ("27f", ["good", "bad"])],
)
def test_row_27_a_wrong_verdict_stops_the_run_before_a_step(tokenizer, situation, returned):
    def verdict(completions):
        return returned

    # No prompt of its own decides what is sampled, so that the message does not depend on it.
    trainer = ppo(tokenizer, reward_funcs=verdict)
    before = [p.detach().clone() for p in trainer.policy.parameters()]
    with pytest.raises(ValueError, match="reward 'verdict'") as error:
        trainer.train()
    start, _, rest = promised(situation).partition("…")
    assert str(error.value).startswith(start)
    assert str(error.value).endswith(rest)
    assert all(p.equal(old) for p, old in zip(trainer.policy.parameters(), before, strict=True))


def test_row_28_a_run_resumes(tokenizer):
    settings = {"save_strategy": "steps", "save_steps": 1, "total_episodes": 4}
    whole = ppo(tokenizer, settings=settings)
    whole.train()
    again = ppo(tokenizer, settings=settings)
    again.train(resume_from_checkpoint="out/checkpoint-1")
    pairs = zip(whole.policy.parameters(), again.policy.parameters(), strict=True)
    assert all(a.equal(b) for a, b in pairs)


def test_row_28_nothing_to_resume_from_is_one_message(tokenizer):
    with pytest.raises(ValueError, match="no whole checkpoint") as error:
        ppo(tokenizer).train(resume_from_checkpoint=True)
    assert str(error.value) == promised("28")


def test_row_28_evaluate_works_without_an_eval_set(tokenizer):
    found = ppo(tokenizer).evaluate()
    assert {"eval_objective/scores", "eval_objective/kl", "eval_rewards/length/mean"} <= set(found)
    assert found["eval_objective/kl"] == 0.0


def test_row_29_fewer_prompts_than_a_rollout_is_one_message_and_no_hang(tokenizer):
    start = time.process_time()
    with pytest.raises(ValueError, match="a rollout has 8 rows") as error:
        ppo(tokenizer, settings={"per_device_train_batch_size": 8})
    assert str(error.value) == promised("29")
    assert time.process_time() - start < 5


def test_row_30_responses_stop_and_the_saved_model_knows_its_end(tokenizer, here):
    model = policy(tokenizer)
    before = model.generation_config.to_dict()
    trainer = ppo(
        tokenizer,
        model=model,
        settings={"response_length": 200, "per_device_train_batch_size": 4, "total_episodes": 4},
    )
    ends = tokenizer.convert_tokens_to_ids(["</s>", "<|im_end|>"])
    trainer.train()
    finished, last = trainer.rollout.finished, trainer.rollout.lengths - 1
    assert bool(finished.any())
    assert set(trainer.rollout.input_ids[finished, last[finished]].tolist()) <= set(ends)
    assert int(trainer.rollout.loss_mask[finished].sum(1).max()) < 200
    assert model.generation_config.to_dict() == before
    trainer.save_model("saved")
    saved = AutoModelForCausalLM.from_pretrained("saved")
    assert saved.generation_config.eos_token_id == before["eos_token_id"]
    assert AutoTokenizer.from_pretrained("saved").eos_token_id == before["eos_token_id"]
