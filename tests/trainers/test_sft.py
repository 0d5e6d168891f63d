"""Supervised fine-tuning: it learns, and no way of cutting the data into batches changes what."""

import datasets
import pytest
import torch
import torch.nn.functional as F
from transformers import DataCollatorForSeq2Seq, TrainingArguments

from tests.builders import tiny_model, tiny_tokenizer
from trellis.trainers.sft import SFTTrainer

from .sft_runs import ANSWER, TEXTS, USER, logged, sft, trained, weights

CHAT = [{"messages": [USER, ANSWER]}] * 8
COMPLETIONS = [
    {"prompt": "is it", "completion": " good"},
    {"prompt": "what is it ?", "completion": " the sea"},
] * 4
SGD = {
    "optim": "sgd",
    "learning_rate": 0.05,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
    "weight_decay": 0.0,
}


@pytest.mark.parametrize(
    "data",
    [TEXTS, CHAT, COMPLETIONS, [{"input_ids": [5, 6, 7, 8]}] * 8],
    ids=["text", "chat", "completion", "ids"],
)
@pytest.mark.parametrize("loss_type", ["nll", "dft"])
def test_the_data_becomes_more_likely(data, loss_type, tmp_path):
    def nll():
        batch = trainer.collate(list(trainer.train_dataset))
        with torch.no_grad():
            return -(trainer.score(trainer.model, batch).logps.sum() / batch.loss_mask.sum()).item()

    trainer = sft(tmp_path, data, max_steps=12, learning_rate=2e-2, loss_type=loss_type)
    before = nll()
    trainer.train()
    assert nll() < 0.7 * before


def test_a_stream_trains_like_the_data_set(tmp_path):
    data = datasets.Dataset.from_list([{"text": text} for text in TEXTS])
    stream = trained(tmp_path, data.to_iterable_dataset(), max_steps=3)
    plain = trained(tmp_path, data, max_steps=3, train_sampling_strategy="sequential")
    assert logged(stream, "loss") == logged(plain, "loss")
    torch.testing.assert_close(weights(stream), weights(plain), rtol=0, atol=0)


def test_a_stream_without_steps_is_refused_at_once(tmp_path):
    stream = datasets.Dataset.from_list([{"text": "good"}]).to_iterable_dataset()
    with pytest.raises(
        ValueError, match=r"stream, which has no length: found max_steps=-1.*SFTConfig\(max_steps="
    ):
        sft(tmp_path, stream, max_steps=-1)


@pytest.mark.parametrize("optim", ["sgd", "adamw_torch"])
def test_no_split_into_micro_batches_changes_a_weight(optim, tmp_path):
    def run(rows, steps):
        options = {**SGD, "optim": optim, "learning_rate": 0.05 if optim == "sgd" else 1e-3}
        return trained(
            tmp_path, per_device_train_batch_size=rows, gradient_accumulation_steps=steps, **options
        )

    reference = run(8, 1)
    for rows, steps in [(4, 2), (2, 4), (1, 8)]:
        other = run(rows, steps)
        torch.testing.assert_close(
            weights(other), weights(reference), rtol=1e-5, atol=1e-5 if optim == "sgd" else 1e-4
        )
        for name in ("loss", "entropy", "mean_token_accuracy", "num_tokens", "grad_norm"):
            assert logged(other, name) == pytest.approx(logged(reference, name), rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"packing": True, "max_length": 40},
        {"layout": "packed"},
        {"layout": "padded"},
        {"padding_free": True},
        {"pad_to_multiple_of": 16},
        {"activation_offloading": True},
    ],
)
@pytest.mark.parametrize("pad_is_eos", [False, True])
def test_no_arrangement_of_rows_changes_a_weight(changes, pad_is_eos, tmp_path):
    options = {
        "per_device_train_batch_size": 8,
        "max_steps": 1,
        "tokenizer": tiny_tokenizer(pad_is_eos=pad_is_eos),
        **SGD,
    }
    reference, other = trained(tmp_path, **options), trained(tmp_path, **{**options, **changes})
    torch.testing.assert_close(weights(other), weights(reference), rtol=1e-5, atol=1e-6)
    for name in ("loss", "entropy", "mean_token_accuracy", "num_tokens"):
        assert logged(other, name) == pytest.approx(logged(reference, name), rel=1e-5)
    assert logged(other, "num_tokens")[-1] == sum(len(row["input_ids"]) for row in reference.train_dataset)


@pytest.mark.parametrize("loss_type", ["nll", "dft"])
def test_the_trajectory_is_that_of_a_bare_loop(loss_type, tmp_path):
    tokenizer = tiny_tokenizer()
    trainer = trained(
        tmp_path,
        COMPLETIONS,
        tokenizer=tokenizer,
        loss_type=loss_type,
        max_steps=3,
        **SGD,
        per_device_train_batch_size=8,
    )
    rows = trainer.train_dataset
    model = tiny_model("llama", tokenizer).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=SGD["learning_rate"])
    for step in range(3):
        total = torch.zeros(())
        for row in rows:
            ids = torch.tensor([row["input_ids"]])
            losses = F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
            losses = losses * (-losses.detach()).exp() if loss_type == "dft" else losses
            total = total + losses[torch.tensor(row["loss_mask"][1:]).bool()].sum()
        loss = total / sum(sum(row["loss_mask"]) for row in rows)
        assert logged(trainer, "loss")[step] == pytest.approx(loss.item(), rel=1e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(weights(trainer), dict(model.state_dict()), rtol=1e-4, atol=1e-6)


def test_metrics_equal_a_brute_force_count(tmp_path):
    trainer = sft(
        tmp_path, COMPLETIONS, trainer={"eval_dataset": COMPLETIONS[:2]}, per_device_eval_batch_size=1
    )
    found = trainer.evaluate()
    entropies, hits, losses = [], [], []
    for row in trainer.eval_dataset:
        ids, mask = torch.tensor([row["input_ids"]]), torch.tensor(row["loss_mask"][1:]).bool()
        logps = trainer.model(ids).logits[0, :-1].log_softmax(-1)[mask]
        targets = ids[0, 1:][mask]
        entropies += (-(logps.exp() * logps).sum(-1)).tolist()
        hits += (logps.argmax(-1) == targets).tolist()
        losses += (-logps.gather(1, targets[:, None])[:, 0]).tolist()
    for name, values in (("entropy", entropies), ("mean_token_accuracy", hits), ("loss", losses)):
        assert found[f"eval_{name}"] == pytest.approx(sum(values) / len(values), rel=1e-5)


@pytest.mark.parametrize("pad_is_eos", [False, True])
def test_the_trained_model_stops_by_itself(pad_is_eos, tmp_path):
    tokenizer = tiny_tokenizer(pad_is_eos=pad_is_eos)
    trainer = trained(
        tmp_path,
        COMPLETIONS,
        tokenizer=tokenizer,
        max_steps=40,
        learning_rate=2e-2,
        per_device_train_batch_size=8,
    )
    prompt = tokenizer("is it", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        out = trainer.model.eval().generate(
            prompt, max_new_tokens=20, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
    assert tokenizer.decode(out[0]) == "is it good</s>"


def test_resuming_is_exact_and_num_tokens_goes_on(tmp_path):
    options = {"max_steps": 5, "logging_steps": 2, "per_device_train_batch_size": 2}
    whole = trained(tmp_path / "a", save_strategy="steps", save_steps=3, **options)
    again = sft(tmp_path / "a", save_strategy="steps", save_steps=3, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))
    torch.testing.assert_close(weights(again), weights(whole), rtol=0, atol=0)
    assert logged(again, "num_tokens") == logged(whole, "num_tokens")
    assert logged(again, "entropy") == logged(whole, "entropy")


def test_plain_training_arguments_and_a_name(tmp_path):
    tokenizer = tiny_tokenizer()
    tiny_model("llama", tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    args = TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        max_steps=2,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(str(tmp_path / "model"), args, train_dataset=TEXTS)
    trainer.train()
    assert (trainer.args.max_length, trainer.args.max_steps) == (1024, 2)
    assert trainer.model.dtype == torch.float32


def test_a_collator_of_transformers_gives_the_same_weights(tmp_path):
    tokenizer = tiny_tokenizer()
    own = trained(tmp_path, COMPLETIONS, **SGD)
    stock = trained(
        tmp_path, COMPLETIONS, trainer={"data_collator": DataCollatorForSeq2Seq(tokenizer)}, **SGD
    )
    torch.testing.assert_close(weights(stock), weights(own), rtol=0, atol=0)


@pytest.mark.parametrize("mean", [False, True])
def test_a_users_loss_is_normalised_like_ours(mean, tmp_path):
    def loss(outputs, labels, num_items_in_batch):
        total = F.cross_entropy(
            outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="mean" if mean else "sum"
        )
        return total if mean else total / num_items_in_batch

    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, **SGD}
    user = trained(tmp_path, trainer={"compute_loss_func": loss}, **options)
    torch.testing.assert_close(weights(user), weights(trained(tmp_path, **options)), rtol=1e-5, atol=1e-6)


def test_a_users_metrics_see_logits_and_labels(tmp_path):
    def accuracy(prediction):
        ids, labels = torch.as_tensor(prediction.predictions), torch.as_tensor(prediction.label_ids)
        picked = labels[:, 1:] != -100
        return {"mine": float((ids[:, :-1] == labels[:, 1:])[picked].float().mean())}

    functions = {
        "compute_metrics": accuracy,
        "preprocess_logits_for_metrics": lambda logits, labels: logits.argmax(-1),
    }
    trainer = sft(tmp_path, COMPLETIONS, trainer={"eval_dataset": COMPLETIONS, **functions})
    found = trainer.evaluate()
    assert found["eval_mine"] == pytest.approx(found["eval_mean_token_accuracy"])


def test_an_adapter_is_trained_and_the_base_is_not(tmp_path):
    from peft import LoraConfig

    model = tiny_model("llama")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = trained(
        tmp_path, model=model, trainer={"peft_config": LoraConfig(r=4, target_modules=["q_proj", "v_proj"])}
    )
    after = trainer.model.get_base_model().state_dict()
    assert all(
        torch.equal(
            after[
                name.replace("proj.", "proj.base_layer.")
                if name.replace("proj.", "proj.base_layer.") in after
                else name
            ],
            value,
        )
        for name, value in before.items()
    )
    moved = [p.abs().sum() > 0 for n, p in trainer.model.named_parameters() if "lora_B" in n]
    assert all(moved)
    assert len(moved) == 4


def test_the_users_model_settings_are_left_alone(tmp_path):
    tokenizer = tiny_tokenizer()
    model = tiny_model("llama", tokenizer)
    model.generation_config.eos_token_id = [1, 4]
    before = (model.generation_config.to_dict(), model.config.to_dict(), tokenizer.chat_template)
    trained(tmp_path, CHAT, model=model, tokenizer=tokenizer)
    assert (model.generation_config.to_dict(), model.config.to_dict(), tokenizer.chat_template) == before
