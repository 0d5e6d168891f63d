"""Rows 15 to 22, and what rows 3, 4, 25 and 30 ask of GRPO and RLOO: their first run."""

from typing import Any

import pytest
from transformers import AutoModelForCausalLM, TrainingArguments

import trellis
from tests.builders import tiny_model

from .page import promised
from .parts import COMMON, TEXTS, length, policy

GROUPS = ["GRPO", "RLOO"]
SHORT = {
    **COMMON,
    "per_device_train_batch_size": 4,
    "num_generations": 4,
    "max_completion_length": 4,
    "max_steps": 1,
    "learning_rate": 1e-2,
}


def build(method: str, tokenizer: Any, *, settings: Any = None, **parts: Any) -> Any:
    """A short run of a tiny policy rewarded by `length`, each part replaceable."""
    config, trainer = (getattr(trellis, method + part) for part in ("Config", "Trainer"))
    given = {
        "model": policy(tokenizer),
        "reward_funcs": length,
        "args": config("out", **{**SHORT, **(settings or {})}),
        "train_dataset": TEXTS,
        "processing_class": tokenizer,
        **parts,
    }
    return trainer(**given)


def any_length(completions, **columns):
    """`length` of texts and chats."""
    return [float(len(str(completion))) for completion in completions]


@pytest.mark.parametrize(
    ("situation", "settings"),
    [
        ("15", {"gradient_accumulation_steps": 1}),
        ("15b", {"gradient_accumulation_steps": 8, "steps_per_generation": 12}),
    ],
)
def test_row_15_a_batch_that_is_no_group_is_one_message_with_numbers_that_are(tokenizer, situation, settings):
    args = trellis.GRPOConfig("out", **COMMON, per_device_train_batch_size=1, **settings)
    with pytest.raises(ValueError, match="completions") as error:
        build("GRPO", tokenizer, args=args)
    assert str(error.value) == promised(situation)


def test_row_15_the_numbers_of_the_message_train(tokenizer):
    settings = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, "num_generations": 8}
    trainer = build("GRPO", tokenizer, settings=settings)
    trainer.train()
    assert trainer.state.global_step == 1


@pytest.mark.parametrize("method", GROUPS)
@pytest.mark.parametrize(
    ("situation", "returned"),
    [
        ("16", [1.0]),
        ("16b", 1.0),
        ("20", [1.0, float("nan"), 0.0, 0.0]),
        ("21", [1.0, 0.0, 0.0, float("inf")]),
    ],
)
def test_rows_16_20_and_21_a_wrong_verdict_stops_the_run_before_a_step(
    tokenizer, method, situation, returned
):
    def verdict(completions):
        return returned

    trainer = build(method, tokenizer, reward_funcs=verdict)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    with pytest.raises(ValueError, match="reward 'verdict'") as error:
        trainer.train()
    start, _, rest = promised(situation).partition("…")
    assert str(error.value).startswith(start)
    assert str(error.value).endswith(rest)
    assert all(p.equal(old) for p, old in zip(trainer.model.parameters(), before, strict=True))


@pytest.mark.parametrize("method", GROUPS)
def test_row_17_a_reward_of_prompts_and_completions_trains(tokenizer, method):
    def both(prompts, completions):
        return [float(len(p) + len(c)) for p, c in zip(prompts, completions, strict=True)]

    trainer = build(method, tokenizer, reward_funcs=both)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    assert not all(p.equal(old) for p, old in zip(trainer.model.parameters(), before, strict=True))


@pytest.mark.parametrize("method", GROUPS)
def test_rows_18_and_19_a_constant_reward_has_a_verdict(tokenizer, method, caplog):
    def constant(completions):
        return [1.0] * len(completions)

    trainer = build(method, tokenizer, reward_funcs=constant, settings={"max_steps": 9})
    trainer.train()
    said = [r.getMessage() for r in caplog.records if "nothing is learned" in r.getMessage()]
    assert said == [promised("18")]


@pytest.mark.parametrize("method", GROUPS)
def test_row_22_a_tokenizer_that_says_more_than_ids_trains(tokenizer, method):
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    assert "token_type_ids" in tokenizer("good")
    trainer = build(method, tokenizer)
    trainer.train()
    assert trainer.state.global_step == 1


def test_row_3_plain_training_arguments_are_enough_for_groups(tokenizer):
    args = TrainingArguments("out", **COMMON, max_steps=1, per_device_train_batch_size=8)
    trainer = build("GRPO", tokenizer, args=args)
    trainer.train()
    assert trainer.state.global_step == 1


@pytest.mark.parametrize("method", GROUPS)
@pytest.mark.parametrize(
    "data",
    [[{"prompt": [{"role": "user", "content": text}]} for text in TEXTS], [{"input_ids": [5, 6, 7]}] * 4],
    ids=["chats", "input_ids"],
)
def test_row_25_groups_take_chats_and_ids_too(tokenizer, method, data):
    trainer = build(method, tokenizer, train_dataset=data, reward_funcs=any_length)
    trainer.train()
    assert trainer.state.global_step == 1


@pytest.mark.parametrize("method", GROUPS)
def test_row_30_completions_stop_where_the_end_is_also_padding(pad_eos_tokenizer, here, method):
    tokenizer, end = pad_eos_tokenizer, pad_eos_tokenizer.eos_token_id
    model = tiny_model("llama", tokenizer)
    before = model.generation_config.to_dict()
    trainer = build(method, tokenizer, model=model, settings={"max_completion_length": 200})
    trainer.train()
    rollout = trainer.rollout
    last, finished = rollout.lengths - 1, rollout.finished
    ends = {end, tokenizer.convert_tokens_to_ids("<|im_end|>")}
    assert bool(finished.any())
    assert set(rollout.input_ids[finished, last[finished]].tolist()) <= ends
    assert bool(rollout.loss_mask[finished, last[finished]].all())
    trainer.save_model("saved")
    saved = AutoModelForCausalLM.from_pretrained("saved").generation_config
    assert saved.eos_token_id == before["eos_token_id"]
