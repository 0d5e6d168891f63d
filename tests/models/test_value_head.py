"""Models with a value head: what a call gives, files as older code writes them, and PPO on such a model."""

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, T5Config, T5ForConditionalGeneration

from tests.builders import tiny_classifier, tiny_model
from tests.trainers.ppo_runs import trainer_of
from trellis.models import (
    AutoModelForCausalLMWithValueHead,
    AutoModelForSeq2SeqLMWithValueHead,
    create_reference_model,
    load_causal_lm,
)

IDS = torch.tensor([[5, 20, 30, 40, 41]])


def wrapped(kind="llama", **options):
    options = {"v_head_init_strategy": "normal", "summary_dropout_prob": 0.0, **options}
    return AutoModelForCausalLMWithValueHead.from_pretrained(tiny_model(kind), **options)


def values(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS)[2]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_call_gives_logits_loss_and_values(kind):
    model = wrapped(kind)
    bare = model.pretrained_model(input_ids=IDS, labels=IDS, output_hidden_states=True)
    logits, loss, found = model(input_ids=IDS, labels=IDS)
    head = model.v_head.summary
    torch.testing.assert_close(logits, bare.logits)
    torch.testing.assert_close(loss, bare.loss)
    torch.testing.assert_close(found, bare.hidden_states[-1] @ head.weight[0] + head.bias)
    assert not head.bias.any()
    assert len(model(input_ids=IDS, return_past_key_values=True)) == 4
    assert model(input_ids=IDS)[1] is None


def test_activations_are_recomputed_where_that_is_asked_for():
    model = AutoModelForCausalLMWithValueHead.from_pretrained(tiny_model("llama"))
    layers = [m for m in model.modules() if hasattr(m, "gradient_checkpointing")]
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert layers
    assert all(m.gradient_checkpointing for m in layers)
    model.gradient_checkpointing_disable()
    assert not any(m.gradient_checkpointing for m in layers)


def test_logits_are_float32_whatever_the_model_is():
    model = AutoModelForCausalLMWithValueHead(tiny_model("llama").to(torch.bfloat16))
    logits, _, found = model(input_ids=IDS)
    assert (logits.dtype, found.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize("size", ["1GB", "60KB"])
def test_a_saved_model_comes_back_with_its_head(tmp_path, size):
    model = wrapped()
    model.save_pretrained(tmp_path, max_shard_size=size)
    assert (tmp_path / "model.safetensors.index.json").is_file() == (size == "60KB")
    back = AutoModelForCausalLMWithValueHead.from_pretrained(str(tmp_path))
    assert torch.equal(values(back), values(model))
    stock = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(stock(IDS).logits, model(input_ids=IDS)[0])


def test_the_head_has_the_names_that_older_code_reads(tmp_path):
    model = wrapped()
    model.save_pretrained(tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    assert torch.equal(found["v_head.summary.weight"], model.v_head.summary.weight)
    assert torch.equal(found["v_head.summary.bias"], model.v_head.summary.bias)
    assert "model.embed_tokens.weight" in found


def test_an_adapter_and_the_head_that_older_code_pickled_beside_it(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLMWithValueHead.from_pretrained(
        str(tmp_path / "base"),
        peft_config=LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False),
    )
    assert model.is_peft_model
    model.save_pretrained(tmp_path / "ours")
    assert sorted(load_file(tmp_path / "ours/model.safetensors")) == [
        "v_head.summary.bias",
        "v_head.summary.weight",
    ]
    model.pretrained_model.save_pretrained(tmp_path / "theirs")
    pickled = {f"v_head.{k}": v for k, v in model.v_head.state_dict().items()}
    torch.save(pickled, tmp_path / "theirs/pytorch_model.bin")
    for place in ("ours", "theirs"):
        back = AutoModelForCausalLMWithValueHead.from_pretrained(str(tmp_path / place))
        torch.testing.assert_close(values(back), values(model))
        assert any(p.requires_grad for p in back.pretrained_model.parameters())
    frozen = AutoModelForCausalLMWithValueHead.from_pretrained(str(tmp_path / "ours"), is_trainable=False)
    assert not any(p.requires_grad for p in frozen.pretrained_model.parameters())


class Planted:
    def __reduce__(self):
        return print, ("unpickled",)


def test_a_pickle_may_hold_tensors_only(tmp_path, capsys):
    wrapped().pretrained_model.save_pretrained(tmp_path)
    plain = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save({**plain, "v_head.summary.weight": Planted()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot load the model"):
        AutoModelForCausalLMWithValueHead.from_pretrained(str(tmp_path))
    assert "unpickled" not in capsys.readouterr().out


def test_a_head_of_another_size_is_refused(tmp_path):
    wrapped().save_pretrained(tmp_path)
    model = wrapped(), tiny_model("llama", hidden_size=16)
    with pytest.raises(ValueError, match="does not fit this model"):
        AutoModelForCausalLMWithValueHead(model[1])._take_head(model[0].v_head.state_dict())
    with pytest.raises(ValueError, match="expected None or 'normal'"):
        wrapped(v_head_init_strategy="uniform")


def test_an_encoder_decoder_has_values_of_its_decoder(tmp_path):
    tiny = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 64}
    base = T5ForConditionalGeneration(T5Config(decoder_start_token_id=0, **tiny)).eval()
    model = AutoModelForSeq2SeqLMWithValueHead.from_pretrained(base)
    logits, loss, found = model.eval()(input_ids=IDS, labels=IDS[:, :3])
    assert (logits.shape, found.shape) == ((1, 3, 64), (1, 3))
    assert loss.isfinite()
    assert model.generate(input_ids=IDS, max_new_tokens=2).shape[0] == 1
    model.save_pretrained(tmp_path)
    back = AutoModelForSeq2SeqLMWithValueHead.from_pretrained(str(tmp_path)).eval()
    assert torch.equal(back(input_ids=IDS, labels=IDS[:, :3])[2], found)
    with pytest.raises(TypeError, match="no encoder-decoder"):
        AutoModelForSeq2SeqLMWithValueHead.from_pretrained(tiny_model("llama"))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_frozen_copy_may_share_its_first_layers(kind):
    model = tiny_model(kind)
    alone = create_reference_model(model)
    assert not any(p.requires_grad for p in alone.parameters())
    assert all(p.requires_grad for p in model.parameters())
    shared = create_reference_model(model, num_shared_layers=1)
    same = {n for n, p in shared.named_parameters() if p.data_ptr() == model.get_parameter(n).data_ptr()}
    assert any(".0." in n for n in same)
    assert not any(".1." in n for n in same)
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == same
    for copy in (alone, shared):
        assert torch.equal(copy(IDS).logits, model.eval()(IDS).logits)
    with pytest.raises(ValueError, match="no parameter is of blocks.7"):
        create_reference_model(model, 7, pattern="blocks.{layer}")


def test_ppo_trains_the_head_on_the_trunk(tmp_path):
    model = wrapped()
    before = model.v_head.summary.weight.clone(), model.pretrained_model.lm_head.weight.clone()
    reference = create_reference_model(model, num_shared_layers=1)
    trainer = trainer_of(tmp_path, parts={"model": model, "ref_model": reference}, total_episodes=4)
    trainer.train()
    assert trainer.actor_critic.value_head is model.v_head.summary
    assert not torch.equal(model.v_head.summary.weight, before[0])
    assert not torch.equal(model.pretrained_model.lm_head.weight, before[1])
    assert trainer.state.log_history[0]["objective/kl"] == 0
    trainer.save_model(str(tmp_path / "saved"))
    assert load_causal_lm(str(tmp_path / "saved")) is not None


def test_such_a_model_is_no_value_model(tmp_path):
    with pytest.raises(TypeError, match="give it as model="):
        trainer_of(tmp_path, parts={"value_model": wrapped()})
    critic = tiny_classifier("llama", seed=1)
    trainer = trainer_of(tmp_path, parts={"model": wrapped(), "value_model": critic})
    assert trainer.actor_critic.value_head is None
