"""KTO: the loss and metrics of a plain computation, the KL of a whole step, references, labels, and learning."""

import logging
import math

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig

from tests.builders import tiny_model
from trellis import KTOConfig, KTOTrainer
from trellis.data.unpaired import collate_unpaired
from trellis.experimental import kto as experimental
from trellis.models import add_adapter

from .preference_runs import built, labelled, logged, means, pairs, plain_logps, trained, weights


def summed(model, prompt, answer):
    table = plain_logps(model, prompt, answer)
    return math.fsum(float(table[i, t]) for i, t in enumerate(answer))


def moved(tmp_path, **fields):
    """A trainer whose policy has left its reference."""
    trainer = trained("KTO", tmp_path, data=labelled(), **{"beta": 0.3, **fields})
    trainer.model.eval()
    return trainer


def ratios(trainer, rows, name):
    base = tiny_model("llama").eval()
    return [
        summed(trainer.model, r["prompt_ids"], r[name]) - summed(base, r["prompt_ids"], r[name]) for r in rows
    ]


@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired"])
def test_the_loss_and_the_metrics_are_the_formulas(tmp_path, loss_type):
    trainer = moved(tmp_path, loss_type=loss_type, desirable_weight=1.5, undesirable_weight=0.5)
    rows = [trainer.train_dataset[i] for i in range(6)]
    out = trainer.loss(trainer.model, trainer.collate(rows))
    own, z = ratios(trainer, rows, "completion_ids"), 0.0
    if loss_type == "kto":
        z = max(0.0, sum(ratios(trainer, rows, "mismatched_ids")) / 6)
        assert means(out.metrics)["kl"] == pytest.approx(z, abs=1e-4)
        assert z > 0.01
    total = 0.0
    for row, r in zip(rows, own, strict=True):
        better = r - z if row["label"] else z - r
        total += (1.5 if row["label"] else 0.5) / (1 + math.exp(0.3 * better))
    assert out.total.item() == pytest.approx(total, rel=1e-4)
    found = means(out.metrics)
    for side, liked in (("chosen", True), ("rejected", False)):
        values = [0.3 * r for row, r in zip(rows, own, strict=True) if row["label"] is liked]
        assert found[f"rewards/{side}"] == pytest.approx(sum(values) / len(values), abs=1e-4)
    assert trainer.items(trainer.collate(rows)) == 6


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_the_kl_is_that_of_the_whole_step_however_it_is_cut(tmp_path, batch):
    cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 8 // batch, "optim": "sgd"}
    whole = {"per_device_train_batch_size": 8, "optim": "sgd"}
    common = {"data": labelled(24), "learning_rate": 0.05, "beta": 0.5}
    found, want = trained("KTO", tmp_path, **common, **cut), trained("KTO", tmp_path, **common, **whole)
    torch.testing.assert_close(weights(found), weights(want), rtol=1e-4, atol=1e-5)
    for name in ("loss", "kl", "rewards/chosen", "rewards/rejected", "rewards/margins", "grad_norm"):
        assert logged(found, name) == pytest.approx(logged(want, name), rel=1e-3, abs=1e-4), name
    assert logged(found, "kl")[-1] > 0


def test_the_kl_carries_no_gradient(tmp_path):
    trainer = moved(tmp_path)
    batch = trainer.collate([trainer.train_dataset[i] for i in range(4)])
    trainer.model.zero_grad()
    trainer.loss(trainer.model, batch).total.backward()
    with_kl = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    trainer.model.zero_grad()
    known = trainer.measured([batch])[0]
    trainer.loss(trainer.model, known).total.backward()
    assert torch.equal(with_kl, torch.cat([p.grad.flatten() for p in trainer.model.parameters()]))
    assert not known.kl.requires_grad


def test_held_out_numbers_do_not_depend_on_how_many_rows_go_at_once(tmp_path):
    found = []
    for size in (1, 3, 8):
        trainer = moved(tmp_path, per_device_eval_batch_size=size)
        held_out = built("KTO", tmp_path, data=labelled(), trainer={"eval_dataset": labelled(7, seed=9)})
        found.append(trainer.evaluate(held_out.eval_dataset))
    for other in found[1:]:
        for name in ("eval_loss", "eval_kl", "eval_rewards/margins", "eval_logps/rejected"):
            assert other[name] == pytest.approx(found[0][name], rel=1e-4, abs=1e-5), name
    assert found[0]["eval_kl"] > 0


def test_rows_are_shuffled_and_their_mismatched_answers_stay(tmp_path):
    seen = []

    class Notes(KTOTrainer):
        def loss(self, model, batch):
            seen.append(batch)
            return super().loss(model, batch)

    trainer = Notes(
        tiny_model("llama"),
        args=KTOConfig(
            str(tmp_path), use_cpu=True, disable_tqdm=True, save_strategy="no", num_train_epochs=2,
            per_device_train_batch_size=1,
        ),
        train_dataset=labelled(8),
        processing_class=built("KTO", tmp_path, data=labelled()).processing_class,
    )  # fmt: skip
    trainer.train()
    rows = [(b.own().input_ids[0].tolist(), b.mismatched().input_ids[0].tolist()) for b in seen]
    assert len(rows) == 16
    assert rows[:8] != rows[8:]
    assert sorted(rows[:8]) == sorted(rows[8:])


@pytest.mark.parametrize("form", ["copy", "given", "adapter off", "snapshot", "named adapter"])
def test_the_first_step_has_no_kl_in_any_form_of_reference(tmp_path, form):
    model, more = tiny_model("llama"), {}
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=form == "adapter off")
    if form == "given":
        more = {"ref_model": tiny_model("llama")}
    elif form == "adapter off":
        more = {"peft_config": lora}
    elif form != "copy":
        model = add_adapter(model, lora, "CAUSAL_LM")
        if form == "named adapter":
            model.add_adapter("ref", lora)
            state = dict(model.named_parameters())
            for name, parameter in state.items():
                if ".ref." in name:
                    parameter.data.copy_(state[name.replace(".ref.", ".default.")])
            more = {"ref_adapter_name": "ref"}
    trainer = trained("KTO", tmp_path, model, labelled(), trainer=more, max_steps=2)
    assert logged(trainer, "kl")[0] == 0.0
    assert logged(trainer, "rewards/chosen")[0] == logged(trainer, "rewards/rejected")[0] == 0.0
    assert logged(trainer, "loss")[0] == pytest.approx(0.5, abs=1e-6)
    assert logged(trainer, "rewards/chosen")[1] != 0.0


def test_precomputed_reference_numbers_change_nothing_and_are_kept(tmp_path, caplog):
    held_out = {"eval_dataset": labelled(5, seed=9)}
    plain = trained("KTO", tmp_path, data=labelled(), trainer=held_out)
    known = trained("KTO", tmp_path, data=labelled(), trainer=held_out, precompute_ref_log_probs=True)
    torch.testing.assert_close(weights(known), weights(plain), rtol=1e-4, atol=1e-6)
    assert known.reference is None
    assert known.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"], rel=1e-4)
    with caplog.at_level(logging.INFO, "trellis.trainers.precompute"):
        built("KTO", tmp_path, data=labelled(), precompute_ref_log_probs=True, precompute_ref_batch_size=3)
        assert "reference log-probs read from" in caplog.text
        caplog.clear()
        other = built("KTO", tmp_path, tiny_model("llama", seed=5), labelled(), precompute_ref_log_probs=True)
    assert "computed again" in caplog.text
    batch = collate_unpaired([other.train_dataset[0]], other.pad_id)
    row = other.train_dataset[0]
    assert batch.ref_logps[0].item() == pytest.approx(
        summed(other.model.eval(), row["prompt_ids"], row["completion_ids"]), rel=1e-5
    )


def test_a_reference_can_follow(tmp_path):
    still = trained("KTO", tmp_path, data=labelled())
    following = trained("KTO", tmp_path, data=labelled(), sync_ref_model=True, ref_model_sync_steps=1)
    assert not torch.equal(weights(still), weights(following))
    near = {"sync_ref_model": True, "ref_model_sync_steps": 1, "ref_model_mixup_alpha": 1.0}
    whole = trained("KTO", tmp_path, data=labelled(), **near)
    assert logged(whole, "rewards/margins") == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("liked", [True, False])
def test_one_kind_of_label_is_one_warning(tmp_path, caplog, liked):
    trainer = built("KTO", tmp_path, data=[{**row, "label": liked} for row in labelled()])
    assert f"all 16 labels are {liked}" in caplog.text
    assert f"Add rows with label={not liked}" in caplog.text
    assert len([r for r in caplog.records if r.name == "trellis.trainers.kto_setup"]) == 1
    trainer.train()


def test_imbalance_is_one_warning_that_its_own_weights_silence(tmp_path, caplog):
    rows = [{**row, "label": i % 8 == 0} for i, row in enumerate(labelled(32))]
    built("KTO", tmp_path, data=rows)
    assert "4 answers are liked and 28 are not" in caplog.text
    assert "desirable_weight=7.00 to 9.33, or undesirable_weight=0.11 to 0.14" in caplog.text
    caplog.clear()
    built("KTO", tmp_path, data=rows, desirable_weight=8.0)
    built("KTO", tmp_path, data=pairs())
    assert not [r for r in caplog.records if r.name == "trellis.trainers.kto_setup"]


@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_held_out_answers_are_told_apart(tmp_path, loss_type, seed):
    held_out = {"eval_dataset": labelled(24, seed=50)}
    trainer = built(
        "KTO", tmp_path, tiny_model("llama", seed=seed), Dataset.from_list(pairs(64)), trainer=held_out, max_steps=30,
        per_device_train_batch_size=8, seed=seed, loss_type=loss_type, beta=0.3,
    )  # fmt: skip
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before["eval_loss"] == pytest.approx(0.5, abs=1e-6)
    assert after["eval_loss"] < 0.4
    assert after["eval_rewards/margins"] > 1.0


CHANGES = {
    "learning_rate": {"learning_rate": 1e-4},
    "loss_type": {"loss_type": "apo_zero_unpaired"},
    "beta": {"beta": 0.5},
    "desirable_weight": {"desirable_weight": 2.0},
    "undesirable_weight": {"undesirable_weight": 0.5},
    "max_length": {"max_length": 6},
    "max_prompt_length": {"max_prompt_length": 2},
    "max_completion_length": {"max_completion_length": 3},
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_option_moves_the_weights(tmp_path, name):
    base, other = (trained("KTO", tmp_path, data=labelled(), **more) for more in ({}, CHANGES[name]))
    assert not torch.equal(weights(base), weights(other))


def test_the_other_options_do_what_they_say(tmp_path, capsys):
    for off, probability in ((True, 0.0), (False, 0.5)):
        trainer = built("KTO", tmp_path, tiny_model("llama", attention_dropout=0.5), disable_dropout=off)
        for model in (trainer.model, trainer.reference.model):
            assert model.model.layers[0].self_attn.attention_dropout == probability
    trainer = built("KTO", tmp_path, pad_to_multiple_of=16, dataset_num_proc=1)
    assert trainer.collate([trainer.train_dataset[0]]).tokens.input_ids.shape[1] % 16 == 0
    tiny_model("llama").save_pretrained(tmp_path / "base")
    halved = {"dtype": "bfloat16"}
    named = {"trainer": {"ref_model": str(tmp_path / "base")}, "ref_model_init_kwargs": halved}
    trainer = built("KTO", tmp_path, str(tmp_path / "base"), model_init_kwargs=halved, **named)
    assert trainer.model.dtype == trainer.reference.model.dtype == torch.bfloat16
    plain = weights(trained("KTO", tmp_path, data=labelled()))
    assert torch.equal(plain, weights(trained("KTO", tmp_path, data=labelled(), activation_offloading=True)))
    keep = [
        weights(trained("KTO", tmp_path, max_length=8, truncation_mode=f"keep_{x}")) for x in ("start", "end")
    ]
    assert not torch.equal(*keep)
    table = {"generate_during_eval": True, "max_completion_length": 4}
    built("KTO", tmp_path, trainer={"eval_dataset": pairs(2)}, **table).evaluate()
    shown = capsys.readouterr().out
    assert "policy" in shown
    assert "reference" in shown


def test_every_field_of_the_config_is_tried_above():
    tried = {*CHANGES, "disable_dropout", "pad_to_multiple_of", "dataset_num_proc", "model_init_kwargs"}
    tried |= {"ref_model_init_kwargs", "truncation_mode", "generate_during_eval"}
    tried |= {
        "precompute_ref_log_probs",
        "precompute_ref_batch_size",
        "sync_ref_model",
        "ref_model_sync_steps",
    }
    tried |= {"ref_model_mixup_alpha"}
    assert set(KTOConfig.__dict__["__annotations__"]) - {"renamed"} == tried


def test_what_cannot_be_is_refused_before_anything_is_loaded(tmp_path):
    model = tiny_model("llama")
    with pytest.raises(ValueError, match="ref_model is the model that is trained"):
        built("KTO", tmp_path, model, trainer={"ref_model": model})
    with pytest.raises(ValueError, match="ref_model_init_kwargs say how to load ref_model"):
        built("KTO", tmp_path, "no-such-model", ref_model_init_kwargs={"dtype": "bfloat16"})
    with pytest.raises(ValueError, match="found 1 row, expected at least 2"):
        built("KTO", tmp_path, "no-such-model", labelled(1))
    built("KTO", tmp_path, data=labelled(1), loss_type="apo_zero_unpaired")
    for fields in (
        {"beta": 0.0},
        {"desirable_weight": -1.0},
        {"ref_model_mixup_alpha": 0.0},
        {"max_length": 0},
    ):
        with pytest.raises(ValueError, match=next(iter(fields))):
            KTOConfig(str(tmp_path), use_cpu=True, **fields)
    with pytest.raises(ValueError, match="write precompute_ref_log_probs=False"):
        KTOConfig(str(tmp_path), use_cpu=True, sync_ref_model=True, precompute_ref_log_probs=True)
    with pytest.raises(TypeError, match="UnpairedBatch, found list"):
        built("KTO", tmp_path, trainer={"data_collator": list}).train()


def test_positions_limit_mismatched_answers_and_refuse_rows(tmp_path):
    data = [{"prompt_ids": [9] * 5, "completion_ids": [8], "label": True}]
    data += [{"prompt_ids": [9], "completion_ids": [8] * 6, "label": False}]
    trainer = trained("KTO", tmp_path, tiny_model("gpt2", n_positions=7), data)
    assert [len(trainer.train_dataset[i]["mismatched_ids"]) for i in range(2)] == [2, 1]
    with pytest.raises(ValueError, match="has learned 6 positions. Write KTOConfig\\(max_length=6\\)"):
        built("KTO", tmp_path, tiny_model("gpt2", n_positions=6), data)


def test_users_metrics_see_rewards_and_labels(tmp_path):
    def metrics(prediction):
        rewards, labels = prediction.predictions, prediction.label_ids
        return {"margin": float(rewards[labels].mean() - rewards[~labels].mean())}

    trainer = built(
        "KTO", tmp_path, data=labelled(), trainer={"eval_dataset": labelled(6), "compute_metrics": metrics}
    )
    trainer.train()
    found = trainer.evaluate()
    assert found["eval_margin"] == pytest.approx(found["eval_rewards/margins"], rel=1e-3)


def test_the_second_path_gives_the_same_classes(tmp_path):
    assert type(built("KTO", tmp_path)) is experimental.KTOTrainer
