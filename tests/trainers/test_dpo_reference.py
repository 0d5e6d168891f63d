"""The reference in each of its forms: given, copied, the adapter off, another adapter, computed before, following, left out."""

import logging
import math

import pytest
import torch
from safetensors.torch import load_file

from tests.builders import tiny_model, tiny_tokenizer
from trellis.models import add_adapter
from trellis.trainers.precompute import FOLDER

from .dpo_runs import dpo, logged, lora, pairs, trained, weights


def adapted(*names):
    """A model whose adapter "default" does something, with further fresh adapters `names`."""
    torch.manual_seed(0)
    model = add_adapter(tiny_model("llama"), lora(), "CAUSAL_LM")
    for name in names:
        model.add_adapter(name, lora())
    for name, p in model.named_parameters():
        if "lora_B.default" in name:
            p.data.normal_(std=0.5)
    return model


@pytest.mark.parametrize(
    ("model", "arguments", "kind"),
    [
        (lambda: tiny_model("llama"), {}, "copy"),
        (lambda: tiny_model("llama"), {"peft_config": True}, "base"),
        (adapted, {}, "snapshot"),
        (lambda: tiny_model("llama"), {"ref_model": lambda: tiny_model("llama")}, "model"),
    ],
    ids=["full", "fresh adapter", "trained adapter", "given"],
)
def test_step_0_is_the_reference(tmp_path, model, arguments, kind):
    arguments = {k: lora() if v is True else v() for k, v in arguments.items()}
    trainer = dpo(tmp_path, model(), trainer=arguments, max_steps=2)
    assert trainer.reference.kind == kind
    trainer.train()
    assert logged(trainer, "rewards/chosen")[0] == logged(trainer, "rewards/rejected")[0] == 0.0
    assert logged(trainer, "loss")[0] == pytest.approx(math.log(2), rel=1e-6)
    assert logged(trainer, "rewards/margins")[1] != 0.0


def test_a_named_adapter_is_the_reference_and_stays_where_it_is(tmp_path):
    model = adapted("policy")
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if ".default." in n}
    trainer = trained(tmp_path, model, model_adapter_name="policy", ref_adapter_name="default")
    assert logged(trainer, "rewards/chosen")[0] != 0.0  # another model than the policy
    now = dict(model.named_parameters())
    assert all(torch.equal(now[n], p) for n, p in frozen.items())
    assert model.active_adapter == "policy"


def test_the_model_itself_is_no_reference(tmp_path):
    model = tiny_model("llama")
    with pytest.raises(ValueError, match="ref_model is the model that is trained.*pass ref_model=None"):
        dpo(tmp_path, model, trainer={"ref_model": model})


@pytest.mark.parametrize(
    ("fields", "arguments", "says"),
    [
        ({}, {"peft_config": lora, "ref_model": lambda: tiny_model("llama")}, "force_use_ref_model=True"),
        ({"force_use_ref_model": True}, {}, "needs a ref_model=…; found None"),
        ({"reference_free": True}, {"ref_model": lambda: tiny_model("llama")}, "reference_free=True uses no reference"),
        ({"ref_model_init_kwargs": {"dtype": "float32"}}, {}, "must then be a name; found NoneType"),
        ({"ref_adapter_name": "no"}, {}, "needs a peft model"),
        ({"sync_ref_model": True}, {"peft_config": lora}, "sync_ref_model=True needs a reference with weights of its own"),
        ({"sync_ref_model": True}, {"ref_model": lambda: tiny_model("gpt2")}, "the policy's architecture"),
    ],
)  # fmt: skip
def test_a_reference_that_cannot_be_is_refused(tmp_path, fields, arguments, says):
    with pytest.raises(ValueError, match=says):
        dpo(tmp_path, trainer={k: v() for k, v in arguments.items()}, **fields)


def test_a_given_reference_beside_an_adapter(tmp_path):
    trainer = trained(
        tmp_path, max_steps=1, force_use_ref_model=True,
        trainer={"peft_config": lora(), "ref_model": tiny_model("llama", seed=1)},
    )  # fmt: skip
    assert logged(trainer, "rewards/chosen")[0] != 0.0


def test_a_reference_by_name(tmp_path):
    tiny_model("llama", seed=1).save_pretrained(tmp_path / "ref")
    fields = {"max_steps": 1, "ref_model_init_kwargs": {"attn_implementation": "eager"}}
    trainer = trained(tmp_path, trainer={"ref_model": str(tmp_path / "ref")}, **fields)
    assert trainer.reference.model.config._attn_implementation == "eager"
    given = trained(tmp_path, max_steps=1, trainer={"ref_model": tiny_model("llama", seed=1)})
    assert logged(trainer, "rewards/chosen") == pytest.approx(logged(given, "rewards/chosen"), rel=1e-4)


def test_without_reference_rewards_are_those_of_the_policy_alone(tmp_path):
    trainer = trained(tmp_path, reference_free=True, beta=0.3, max_steps=1)
    assert trainer.reference is None
    for side in ("chosen", "rejected"):
        reward = 0.3 * logged(trainer, f"logps/{side}")[0]
        assert logged(trainer, f"rewards/{side}")[0] == pytest.approx(reward, rel=1e-6)


# ---- computed before training


@pytest.mark.parametrize(
    "fields", [{}, {"ld_alpha": 0.3}, {"layout": "padded"}, {"precompute_ref_batch_size": 3}]
)
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_precomputed_is_live(tmp_path, fields, adapter):
    def run(**more):
        given = {"peft_config": lora() if adapter else None, "eval_dataset": pairs(5, seed=8)}
        return trained(tmp_path, data=pairs(13), trainer=given, **{**fields, **more})

    live = run()
    ready = run(precompute_ref_log_probs=True)
    assert ready.reference is None
    torch.testing.assert_close(weights(ready), weights(live), rtol=1e-5, atol=1e-6)
    found, want = ready.evaluate(), live.evaluate()
    for name in ("eval_loss", "eval_rewards/chosen", "eval_rewards/margins", "eval_rewards/accuracies"):
        assert found[name] == pytest.approx(want[name], abs=1e-5), name


def test_a_second_run_reads_what_the_first_computed(tmp_path, caplog):
    given = {"eval_dataset": {"a b": pairs(3, seed=8)}}
    first = dpo(tmp_path, precompute_ref_log_probs=True, trainer=given)
    files = sorted((tmp_path / FOLDER).iterdir())
    assert [f.name for f in files] == ["eval_dataset-a-b.safetensors", "train_dataset.safetensors"]
    with caplog.at_level(logging.INFO, "trellis"):
        second = dpo(tmp_path, precompute_ref_log_probs=True, trainer=given)
    assert caplog.text.count("reference log-probs read from") == 2
    assert second.train_dataset == first.train_dataset
    assert second.eval_dataset == first.eval_dataset


@pytest.mark.parametrize(
    "change",
    [
        {"data": pairs(16, seed=4)},
        {"data": pairs(15)},
        {"model": tiny_model("llama", seed=1)},
        {"ld_alpha": 0.5},
        {"max_prompt_length": 2},
        {"trainer": {"processing_class": tiny_tokenizer(add_bos=True)}},
    ],
    ids=["data", "rows", "model", "ld_alpha", "limits", "tokenizer"],
)
def test_a_stale_cache_is_not_used(tmp_path, caplog, change):
    dpo(tmp_path, precompute_ref_log_probs=True)
    path = tmp_path / FOLDER / "train_dataset.safetensors"
    before = path.read_bytes()
    found = dpo(tmp_path, precompute_ref_log_probs=True, **change)
    assert "it is not used" in caplog.text
    assert path.read_bytes() != before
    alone = dpo(tmp_path / "alone", precompute_ref_log_probs=True, **change)
    assert found.train_dataset == alone.train_dataset


def test_a_damaged_cache_is_not_used(tmp_path, caplog):
    first = dpo(tmp_path, precompute_ref_log_probs=True)
    path = tmp_path / FOLDER / "train_dataset.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    assert dpo(tmp_path, precompute_ref_log_probs=True).train_dataset == first.train_dataset
    assert "cannot be read" in caplog.text
    assert load_file(path)["logps"].shape == (16, 2)


def test_columns_of_a_hub_style_data_set(tmp_path):
    from datasets import Dataset

    trainer = dpo(tmp_path, data=Dataset.from_list(pairs(6)), precompute_ref_log_probs=True)
    rows = dpo(tmp_path / "list", data=pairs(6), precompute_ref_log_probs=True).train_dataset
    assert trainer.train_dataset["ref_chosen_logps"] == [r["ref_chosen_logps"] for r in rows]
    stream = Dataset.from_list(pairs(6)).to_iterable_dataset()
    with pytest.raises(ValueError, match="train_dataset is a stream.*precompute_ref_log_probs=False"):
        dpo(tmp_path, data=stream, precompute_ref_log_probs=True)


def test_data_that_came_after_precomputing_is_refused(tmp_path):
    other = dpo(tmp_path / "other").train_dataset
    trainer = dpo(tmp_path, precompute_ref_log_probs=True)
    with pytest.raises(ValueError, match="the reference was let go after precomputing"):
        trainer.evaluate(other)


# ---- following


def test_the_reference_follows_every_so_many_steps(tmp_path):
    trainer = dpo(
        tmp_path, sync_ref_model=True, ref_model_sync_steps=2, ref_model_mixup_alpha=0.25, max_steps=3
    )
    start = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    seen = []

    def note(step):
        return torch.cat([p.detach().flatten() for p in trainer.reference.model.parameters()])

    from transformers import TrainerCallback

    class Note(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append((note(state.global_step), weights(trainer)))

    trainer.add_callback(Note())
    trainer.train()
    assert torch.equal(seen[0][0], start)
    torch.testing.assert_close(seen[1][0], 0.75 * start + 0.25 * seen[1][1])
    assert torch.equal(seen[2][0], seen[1][0])


def test_a_trained_adapter_s_snapshot_follows(tmp_path):
    trainer = dpo(tmp_path, adapted(), sync_ref_model=True, ref_model_sync_steps=1, ref_model_mixup_alpha=1.0)
    trainer.train()
    policy = dict(trainer.model.named_parameters())
    assert all(torch.equal(v, policy[n].detach()) for n, v in trainer.reference.values.items())
