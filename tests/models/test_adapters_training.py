"""Adapters under all nine trainers: none is dead, the reference is the start, a cut with recomputed activations changes
nothing, and what is saved is what was trained."""

from __future__ import annotations

import logging

import pytest
import torch
from peft import LoraConfig
from torch import nn

import trellis
from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer
from tests.invariance.cases import CASES, ROWS, assert_same, train
from trellis.models import load_causal_lm
from trellis.scoring import score
from trellis.types import TokenBatch

TEXTS = ["the battery lasts all day", "it is easy to use", "the price is great .", "the screen is small"]
PAIRS = [{"prompt": "the battery", "chosen": " " + text, "rejected": " is bad"} for text in TEXTS]
PROMPTS = [{"prompt": text} for text in TEXTS]


def lora(**changes):
    return LoraConfig(**{"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **changes})


def lengths(completions, **columns):
    return [float(len(text) % 7) for text in completions]


def trainer_of(method, folder, model, data, *, parts=None, **fields):
    """A trainer of one optimizer step."""
    config, trainer = (getattr(trellis, method + part) for part in ("Config", "Trainer"))
    common = {"max_steps": 1, "per_device_train_batch_size": 4, "save_strategy": "no", "use_cpu": True}
    args = config(output_dir=str(folder), disable_tqdm=True, **{**common, **fields})
    parts = {"processing_class": tiny_tokenizer(), **(parts or {})}
    return trainer(model=model, args=args, train_dataset=data, **parts)


# ---- the nine -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_a_cut_with_recomputed_activations_changes_nothing_and_no_adapter_is_dead(name, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "trellis.monitor.health"):
        want = train(name, str(tmp_path), ROWS, 1, peft=True, max_steps=2)
        found = train(name, str(tmp_path), 2, 4, peft=True, max_steps=2, gradient_checkpointing=True)
    assert_same(found, want)
    assert not [r for r in caplog.records if r.name == "trellis.monitor.health"]
    moved = [bool(x.any()) for key, x in want["weights"].items() if "lora_B" in key]
    assert moved
    assert all(moved)


# ---- the reference ------------------------------------------------------------------------------------------------------


def started(kind):
    """(a policy with an adapter that is fresh, trained, or one of two; what is to be trained besides; the reference's kind)"""
    model = load_causal_lm(tiny_model("llama"), peft_config=lora())
    generator = torch.Generator().manual_seed(1)
    if kind != "fresh":
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.2, generator=generator)
    if kind == "named":
        model.add_adapter("start", lora())
        weights = dict(model.named_parameters())
        for name, parameter in weights.items():
            if ".start." in name:
                parameter.data.copy_(weights[name.replace(".start.", ".default.")].data)
    return model


def referring(method, folder, kind):
    """A trainer that keeps its policy close to a reference, and that reference."""
    group = {"max_completion_length": 8, "num_generations": 4, "beta": 0.1}
    fields = {"PPO": {"response_length": 8, "num_sample_generations": 0}, "GRPO": group, "RLOO": group}.get(
        method, {}
    )
    parts = {} if method in ("DPO", "KTO") else {"reward_funcs": lengths}
    names = {"ref_adapter_name": "default", "model_adapter_name": "start"} if kind == "named" else {}
    where = parts if method == "KTO" else fields
    where.update(names)
    data = PAIRS if method in ("DPO", "KTO") else PROMPTS * 8
    trainer = trainer_of(method, folder, started(kind), data, parts=parts, **fields)
    return trainer, trainer.collector.means.reference if hasattr(trainer, "collector") else trainer.reference


@pytest.mark.parametrize("kind", ["fresh", "trained", "named"])
@pytest.mark.parametrize("method", ["DPO", "KTO", "PPO", "GRPO", "RLOO"])
def test_the_kl_at_step_0_is_exactly_0(method, kind, tmp_path):
    trainer, reference = referring(method, tmp_path, kind)
    assert reference.kind == {"fresh": "base", "trained": "snapshot", "named": "adapter"}[kind]
    policy = getattr(trainer, "policy", trainer.model)
    ids = [[0, 20, 30, 40, 50, 1], [0, 21, 31, 1]]
    batch = TokenBatch.from_lists(ids, [[0, 0] + [1] * (len(row) - 2) for row in ids], prompt_len=[2, 2])
    before = score(policy, batch).logps.detach()
    with reference.active(policy) as model:
        assert torch.equal(score(model, batch).logps, before)
    trainer.train()
    with reference.active(policy) as model:
        assert torch.equal(score(model, batch).logps, before)
    assert not torch.equal(score(policy.eval(), batch).logps, before)
    assert policy.active_adapter == ("start" if kind == "named" else "default")


@pytest.mark.parametrize("method", ["GRPO", "RLOO"])
def test_a_reference_adapter_without_a_kl_penalty_is_refused(method, tmp_path):
    with pytest.raises(
        ValueError, match="ref_adapter_name=start: expected None, as beta=0 keeps no reference"
    ):
        getattr(trellis, f"{method}Config")(output_dir=str(tmp_path), beta=0.0, ref_adapter_name="start")


# ---- dead adapters ------------------------------------------------------------------------------------------------------


def with_an_unused_layer():
    """A model with a layer that its forward pass never calls."""
    model = tiny_model("llama")
    model.model.layers[1].mlp.spare = nn.Linear(32, 32)
    return model


def test_a_module_that_the_forward_pass_never_uses_is_named(tmp_path, caplog):
    adapter = lora(target_modules=["q_proj", "spare"])
    trainer = trainer_of(
        "SFT", tmp_path, with_an_unused_layer(), [{"text": t} for t in TEXTS], parts={"peft_config": adapter}, max_steps=2
    )  # fmt: skip
    with caplog.at_level(logging.WARNING, "trellis.monitor.health"):
        trainer.train()
    (said,) = [r.getMessage() for r in caplog.records if r.name == "trellis.monitor.health"]
    assert said.startswith("health, step 0: dead-lora: 1 of 3 adapted modules got no gradient")
    assert "model.layers.1.mlp.spare" in said


def test_a_policy_none_of_whose_adapters_is_used_is_an_error_though_its_critic_learns(tmp_path):
    parts = {
        "peft_config": lora(target_modules=["spare"]),
        "reward_funcs": lengths,
        "value_model": tiny_classifier("llama", seed=1),
    }
    small = {"response_length": 8, "num_sample_generations": 0, "entropy_coef": 0.0}
    trainer = trainer_of("PPO", tmp_path, with_an_unused_layer(), PROMPTS * 8, parts=parts, **small)
    with pytest.raises(ValueError, match="trainable weight|no part of the computation"):
        trainer.train()


def test_a_loss_that_depends_on_nothing_trainable_says_so(tmp_path):
    parts = {"peft_config": lora(target_modules=["spare"])}
    trainer = trainer_of("SFT", tmp_path, with_an_unused_layer(), [{"text": t} for t in TEXTS], parts=parts)
    with pytest.raises(ValueError, match="depends on no trainable weight.*target_modules"):
        trainer.train()


def test_a_critic_that_is_warmed_up_is_no_dead_policy(tmp_path, caplog):
    parts = {
        "peft_config": lora(),
        "reward_funcs": lengths,
        "value_model": tiny_classifier("llama", seed=1),
        "value_peft_config": lora(task_type="SEQ_CLS"),
    }
    small = {"response_length": 8, "num_sample_generations": 0, "value_warmup_steps": 2, "num_ppo_epochs": 1}
    model = tiny_model("llama")
    trainer = trainer_of(
        "PPO", tmp_path, model, PROMPTS * 8, parts=parts, max_steps=4, num_mini_batches=1, **small
    )
    with caplog.at_level(logging.WARNING, "trellis.monitor.health"):
        trainer.train()
    assert not [r for r in caplog.records if r.name == "trellis.monitor.health"]
    weights = dict(trainer.model.named_parameters())
    for part in ("policy", "value_model"):
        assert all(bool(p.any()) for n, p in weights.items() if n.startswith(part) and "lora_B" in n)
    trainer.save_model(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "critic" / "adapter_config.json").is_file()


def test_an_adapter_on_the_head_is_trained(tmp_path, caplog):
    adapter = lora(target_modules=["q_proj", "lm_head"])
    data = [{"text": t} for t in TEXTS]
    trainer = trainer_of("SFT", tmp_path, tiny_model("llama"), data, parts={"peft_config": adapter})
    with caplog.at_level(logging.WARNING, "trellis.monitor.health"):
        trainer.train()
    assert not [r for r in caplog.records if r.name == "trellis.monitor.health"]
    head = trainer.model.get_base_model().lm_head
    assert bool(head.lora_B["default"].weight.any())


# ---- saving -------------------------------------------------------------------------------------------------------------


def test_a_save_that_lost_the_adapter_is_an_error_and_leaves_no_checkpoint(tmp_path):
    class Forgetful(trellis.SFTTrainer):
        def save_parts(self, folder, state_dict=None):
            super().save_parts(folder, {k: v[:0] for k, v in self.model.state_dict().items() if "lora" in k})

    args = trellis.SFTConfig(
        output_dir=str(tmp_path / "run"), max_steps=1, save_steps=1, save_strategy="steps", use_cpu=True, disable_tqdm=True
    )  # fmt: skip
    trainer = Forgetful(
        model=tiny_model("llama"), args=args, train_dataset=[{"text": t} for t in TEXTS], peft_config=lora(),
        processing_class=tiny_tokenizer(),
    )  # fmt: skip
    with pytest.raises(OSError, match="has no numbers"):
        trainer.train()
    assert not list((tmp_path / "run").glob("checkpoint-*"))


# ---- embeddings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["SFT", "Reward", "DPO", "KTO", "ORPO", "CPO", "PPO", "GRPO", "RLOO"])
def test_a_tokenizer_with_more_tokens_than_embeddings_is_an_error_with_what_to_write(method, tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<new>"])
    online, model = method in ("PPO", "GRPO", "RLOO"), tiny_model("llama")
    data = [{"prompt": "the <new>"}] * 8 if online else [{"text": "a <new>"}] if method == "SFT" else PAIRS
    parts = {"processing_class": tokenizer, "peft_config": lora(task_type=None)}
    if online:
        parts["reward_funcs"] = lengths
    groups = {"num_generations": 4} if method in ("GRPO", "RLOO") else {}
    model = tiny_classifier("llama") if method == "Reward" else model
    with pytest.raises(ValueError, match=r"modules_to_save=\[.*'embed_tokens'|resize_token_embeddings"):
        trainer_of(method, tmp_path, model, data, parts=parts, **groups).train()
    assert model.get_input_embeddings().weight.shape[0] == 320
