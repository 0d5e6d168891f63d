"""The reward trainer learns, divides once, and leaves a classifier that stock transformers reads the same way."""

import logging
import math
import random

import pytest
import torch
from datasets import Dataset
from peft import AutoPeftModelForSequenceClassification, LoraConfig
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainingArguments

from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer
from trellis import RewardConfig, RewardTrainer
from trellis.data import collate_pairs

GOOD = ["it is very good", "the picture is great", "easy to use", "the price is great"]
BAD = ["it is bad", "it does not work", "the sound is bad", "the screen is small"]


def pairs(n=32, **columns):
    pick = random.Random(3)
    rows = {
        "prompt": ["the battery " * pick.randint(0, 4) + ":" for _ in range(n)],
        "chosen": [" " + pick.choice(GOOD) for _ in range(n)],
        "rejected": [" " + pick.choice(BAD) + " ." * pick.randint(0, 5) for _ in range(n)],
    }
    return Dataset.from_dict({**rows, **columns})


def trainer_of(
    tmp_path, model=None, data=None, tokenizer=None, *, peft_config=None, eval_dataset=None, **args
):
    settings = {
        "output_dir": str(tmp_path / "run"),
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
        "learning_rate": 1e-2,
        "max_steps": 1,
        "logging_steps": 1,
        **args,
    }
    return RewardTrainer(
        tiny_model("llama") if model is None else model,
        RewardConfig(**settings),
        train_dataset=pairs() if data is None else data,
        eval_dataset=eval_dataset,
        processing_class=tokenizer or tiny_tokenizer(),
        peft_config=peft_config,
    )


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def test_separable_pairs_are_separated(tmp_path):
    trainer = trainer_of(
        tmp_path, data=pairs(64), max_steps=30, per_device_train_batch_size=16, eval_dataset=pairs(32)
    )
    trainer.train()
    found = trainer.evaluate()
    assert found["eval_accuracy"] > 0.95
    assert found["eval_loss"] < 0.2
    assert found["eval_margin"] > 1
    assert found["eval_min_reward"] < found["eval_mean_reward"] < found["eval_max_reward"]


@pytest.mark.parametrize("center", [None, 0.1])
def test_the_split_into_micro_batches_changes_nothing(tmp_path, center):
    results = []
    for batch, accumulation in ((8, 1), (4, 2), (1, 8)):
        trainer = trainer_of(
            tmp_path,
            data=pairs(16, margin=[0.1 * (i % 5) for i in range(16)]),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            max_steps=3,
            optim="sgd",
            center_rewards_coefficient=center,
        )
        trainer.train()
        weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
        names = (
            "loss",
            "mean_reward",
            "min_reward",
            "max_reward",
            "accuracy",
            "margin",
            "num_tokens",
            "grad_norm",
        )
        results.append((weights, torch.tensor([logged(trainer, n) for n in names])))
    for weights, metrics in results[1:]:
        torch.testing.assert_close(weights, results[0][0], rtol=1e-4, atol=2e-6)
        torch.testing.assert_close(metrics, results[0][1], rtol=1e-4, atol=2e-5)
    assert not torch.equal(results[0][1][:, 0], results[0][1][:, 2])


def test_loss_and_metrics_are_the_formulas(tmp_path):
    data = pairs(3, margin=[0.5, 0.0, 2.0])
    trainer = trainer_of(tmp_path, tiny_classifier("llama"), data, center_rewards_coefficient=0.3)
    batch = collate_pairs(list(trainer.train_dataset), trainer.pad_id)
    out = trainer.loss(trainer.model.eval(), batch)
    r = trainer.rewards(trainer.model, batch).double().tolist()
    total = 0.0
    for c, j, m in zip(r[:3], r[3:], (0.5, 0.0, 2.0), strict=True):
        total += math.log(1 + math.exp(-(c - j - m))) + 0.3 * (c + j) ** 2
    assert float(out.total.detach()) == pytest.approx(total, rel=1e-5)
    assert trainer.items(batch) == 3
    means = {k: float(s) / n for k, (s, n) in out.metrics.items()}
    assert means["mean_reward"] == pytest.approx(sum(r) / 6, rel=1e-5)
    assert means["margin"] == pytest.approx((sum(r[:3]) - sum(r[3:])) / 3, rel=1e-5)
    assert means["accuracy"] == pytest.approx(sum(c > j for c, j in zip(r[:3], r[3:], strict=True)) / 3)
    low_high = trainer._read_extremes()
    assert (low_high["min_reward"], low_high["max_reward"]) == pytest.approx((min(r), max(r)))


def test_num_tokens_counts_training_only_and_every_real_token_once(tmp_path):
    trainer = trainer_of(
        tmp_path, data=pairs(8), per_device_train_batch_size=4, max_steps=2, eval_dataset=pairs(4), eval_strategy="steps",
        eval_steps=1,
    )  # fmt: skip
    trainer.train()
    rows = list(trainer.train_dataset)
    expected = sum(2 * len(r["prompt_ids"]) + len(r["chosen_ids"]) + len(r["rejected_ids"]) for r in rows)
    assert logged(trainer, "num_tokens")[-1] == expected


@pytest.mark.parametrize("pad_is_eos", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_stock_transformers_reads_the_same_scores_back(tmp_path, kind, pad_is_eos):
    tokenizer = tiny_tokenizer(pad_is_eos=pad_is_eos)
    trainer = trainer_of(tmp_path, tiny_model(kind, tokenizer), tokenizer=tokenizer, max_steps=2)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    batch = collate_pairs(list(trainer.train_dataset)[:6], trainer.pad_id)
    expected = trainer.rewards(trainer.model.eval(), batch).detach()
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    reader = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert stock.config.pad_token_id == reader.pad_token_id != reader.eos_token_id
    assert stock.config.num_labels == 1
    rows = [
        ids[mask].tolist()
        for ids, mask in zip(batch.tokens.input_ids, batch.tokens.attention_mask, strict=True)
    ]
    assert len({len(row) for row in rows}) > 1
    assert all(row[-1] == reader.eos_token_id for row in rows)
    for side in (
        ("right", "left") if kind == "llama" else ("right",)
    ):  # GPT-2 counts positions from the padding on
        padded = reader.pad({"input_ids": rows}, padding_side=side, return_tensors="pt")
        scores = stock(**padded).logits[:, 0].detach()
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)
    assert tokenizer.pad_token == ("</s>" if pad_is_eos else "<pad>")


def test_a_trained_classifier_is_trained_further_as_it_is(tmp_path):
    trainer = trainer_of(tmp_path, tiny_classifier("llama"), max_steps=1, learning_rate=0.0)
    before = {n: t.clone() for n, t in trainer.model.state_dict().items()}
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    again = trainer_of(tmp_path, str(tmp_path / "saved"))
    assert all(torch.equal(t, before[n]) for n, t in again.model.state_dict().items())


# Stock peft, called here without us, reads an attribute that newer transformers have renamed.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_lora_trains_the_head_too_and_both_are_saved(tmp_path):
    tokenizer = tiny_tokenizer(pad_is_eos=True)
    tiny_model("llama", tokenizer).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    lora = LoraConfig(r=8, lora_dropout=0.1, target_modules="all-linear")
    trainer = trainer_of(
        tmp_path, str(tmp_path / "base"), pairs(64), tokenizer, peft_config=lora, max_steps=25,
        per_device_train_batch_size=16,
    )  # fmt: skip
    trainer.train()
    assert logged(trainer, "accuracy")[-1] > 0.9
    trainer.save_model(str(tmp_path / "saved"))
    batch = collate_pairs(list(trainer.train_dataset)[:4], trainer.pad_id)
    expected = trainer.rewards(trainer.model.eval(), batch).detach()
    stock = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "saved", num_labels=1).eval()
    stock.config.pad_token_id = trainer.pad_id
    scores = stock(input_ids=batch.tokens.input_ids, attention_mask=batch.tokens.attention_mask).logits[:, 0]
    torch.testing.assert_close(scores.detach(), expected, rtol=1e-4, atol=1e-5)


def test_two_runs_draw_the_same_adapter_whatever_was_drawn_before(tmp_path):
    lora = LoraConfig(r=4, target_modules=["q_proj"])
    weights = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        trainer = trainer_of(tmp_path, peft_config=lora)
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.equal(*weights)


def test_long_pairs_are_left_out_and_counted(tmp_path):
    data = pairs(8)
    data = Dataset.from_list([*data, {"prompt": "the battery :", "chosen": " good" * 40, "rejected": " bad"}])
    trainer = trainer_of(tmp_path, data=data, max_length=40)
    report = trainer.reports["train_dataset"]
    assert (report.rows_in, report.rows_kept, report.rows_dropped) == (9, 8, 1)
    assert report.reasons == {"longer than max_length": 1}
    assert len(trainer.train_dataset) == 8


def test_nothing_to_learn_from_is_said_before_the_model_is_touched(tmp_path):
    with pytest.raises(ValueError, match="none of the 8 rows can be used with max_length=2"):
        trainer_of(tmp_path, "no-such-model", data=pairs(8), max_length=2)
    same = Dataset.from_dict({"prompt": ["a"] * 4, "chosen": [" b"] * 4, "rejected": [" b"] * 4})
    with pytest.raises(ValueError, match="4 × chosen and rejected are the same"):
        trainer_of(tmp_path, data=same)


def test_other_arguments_are_refused_or_taken_over(tmp_path):
    with pytest.raises(ValueError, match="3 scores per text, expected 1"):
        trainer_of(tmp_path, tiny_classifier("llama", num_labels=3))
    with pytest.raises(ValueError, match="center_rewards_coefficient=-1"):
        RewardConfig(output_dir=str(tmp_path), use_cpu=True, center_rewards_coefficient=-1.0)
    with pytest.raises(TypeError, match="RewardConfig\\(…\\) or plain TrainingArguments\\(…\\), found dict"):
        RewardTrainer(tiny_model("llama"), {}, train_dataset=pairs(4), processing_class=tiny_tokenizer())
    plain = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, max_steps=1, learning_rate=0.25)
    trainer = RewardTrainer(
        tiny_model("llama"), plain, train_dataset=pairs(4), processing_class=tiny_tokenizer()
    )
    assert trainer.args.learning_rate == 0.25
    assert trainer.args.max_length == 1024
    assert RewardConfig(output_dir=str(tmp_path), use_cpu=True).learning_rate == 1e-4


def test_a_collator_that_makes_no_pairs_is_refused(tmp_path):
    trainer = RewardTrainer(
        tiny_model("llama"),
        RewardConfig(output_dir=str(tmp_path), use_cpu=True, max_steps=1, disable_tqdm=True),
        data_collator=lambda rows: {"input_ids": torch.zeros(2, 3)},
        train_dataset=pairs(4),
        processing_class=tiny_tokenizer(),
    )
    with pytest.raises(TypeError, match="must return a trellis.types.PairBatch, found dict"):
        trainer.train()


def test_named_eval_sets_and_a_users_metrics(tmp_path):
    seen = {}

    def metrics(prediction):
        seen["shapes"] = prediction.predictions.shape, prediction.label_ids.shape
        return {"picked": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}

    trainer = RewardTrainer(
        tiny_model("llama"),
        RewardConfig(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True),
        eval_dataset={"short": pairs(6), "more": pairs(10)},
        processing_class=tiny_tokenizer(),
        compute_metrics=metrics,
    )
    found = trainer.evaluate()
    assert found["eval_short_picked"] == pytest.approx(found["eval_short_accuracy"])
    assert "eval_more_loss" in found
    assert seen["shapes"] == ((10, 2), (10,))
    assert set(trainer.reports) == {"eval_dataset['short']", "eval_dataset['more']"}


def test_each_option_changes_something(tmp_path, caplog):
    dropping = tiny_model("llama", attention_dropout=0.5)
    assert trainer_of(tmp_path, dropping).model.model.layers[0].self_attn.attention_dropout == 0.0
    kept = trainer_of(tmp_path, dropping, disable_dropout=False)
    assert kept.model.model.layers[0].self_attn.attention_dropout == 0.5
    trainer = trainer_of(tmp_path, pad_to_multiple_of=16)
    assert trainer.collate(list(trainer.train_dataset)[:2]).tokens.input_ids.shape[1] % 16 == 0
    trainer = trainer_of(tmp_path, eos_token="<|im_end|>", pad_token="<s>")
    assert trainer.train_dataset[0]["chosen_ids"][-1] == trainer.processing_class.convert_tokens_to_ids(
        "<|im_end|>"
    )
    assert trainer.model.config.pad_token_id == trainer.processing_class.convert_tokens_to_ids("<s>")
    tiny_model("llama").save_pretrained(tmp_path / "base")
    halved = trainer_of(tmp_path, str(tmp_path / "base"), model_init_kwargs={"dtype": "bfloat16"})
    assert halved.model.dtype == torch.bfloat16
    (tmp_path / "plain.jinja").write_text("{% for m in messages %}<{{ m['content'] }}>{% endfor %}")
    chat = Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": "hi"}]],
            "chosen": [[{"role": "assistant", "content": "good"}]],
            "rejected": [[{"role": "assistant", "content": "bad"}]],
        }
    )
    trainer = trainer_of(tmp_path, data=chat, chat_template_path=str(tmp_path / "plain.jinja"))
    row = trainer.train_dataset[0]
    assert trainer.processing_class.decode(row["prompt_ids"] + row["chosen_ids"]).startswith("<hi><good>")


def test_offloaded_activations_give_the_same_gradient(tmp_path):
    gradients = []
    for offload in (False, True):
        trainer = trainer_of(tmp_path, tiny_classifier("llama"), activation_offloading=offload)
        batch = collate_pairs(list(trainer.train_dataset)[:4], trainer.pad_id)
        trainer.loss(trainer.model, batch).total.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]))
    assert torch.equal(*gradients)


def test_a_resumed_run_ends_where_the_uninterrupted_one_does(tmp_path):
    settings = {
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 2,
        "logging_steps": 4,
        "optim": "adamw_torch",
    }
    whole = trainer_of(tmp_path / "whole", per_device_train_batch_size=4, **settings)
    whole.train()
    resumed = trainer_of(tmp_path / "whole", per_device_train_batch_size=4, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole/run/checkpoint-2"))
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    for name in ("min_reward", "max_reward", "mean_reward", "num_tokens", "loss"):
        assert logged(whole, name) == logged(resumed, name)


def test_a_checkpoint_remembers_the_extremes_of_an_unfinished_window(tmp_path):
    trainer, other = (trainer_of(tmp_path, tiny_classifier("llama")) for _ in range(2))
    for each in (trainer, other):
        each.train()
    trainer.extremes.add(torch.tensor([-100.0, 3.0]))
    other.load_extra_state(*trainer.extra_state())
    other.extremes.add(torch.tensor([5.0]))
    assert other._read_extremes() == {"min_reward": -100.0, "max_reward": 5.0}


def test_an_equal_pad_and_end_token_is_announced(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "trellis.models.tokens"):
        trainer_of(tmp_path, tokenizer=tiny_tokenizer(pad_is_eos=True))
    assert [r for r in caplog.records if "the classifier pads with" in r.message]
