"""Policy and critic as one module that Hugging Face's loop can handle, saved in two parts."""

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification

from tests.builders import recompute_activations, tiny_classifier, tiny_model
from trellis.models import ActorCritic, load_causal_lm
from trellis.scoring import score, sequence_scores, token_values
from trellis.types import TokenBatch

IDS = torch.tensor([[0, 20, 30, 40, 1]])


def batch():
    return TokenBatch.from_lists([[0, 20, 30, 40, 1], [0, 21, 1]], [[0, 0, 1, 1, 1], [0, 1, 1]])


def test_a_value_head_starts_at_zero_and_draws_nothing():
    before = torch.random.get_rng_state()
    model = ActorCritic(tiny_model("llama").to(torch.bfloat16))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.value_model is None
    assert model.value_head.weight.shape == (1, 32)
    assert model.value_head.weight.dtype == torch.float32
    assert not model.value_head.weight.any()
    assert not model.value_head.bias.any()
    model = ActorCritic(tiny_model("llama"))
    values = score(model.policy, batch(), value_head=model.value_head).values
    assert not values.any()
    values.sum().backward()
    assert model.value_head.weight.grad.any()


def test_parameters_are_listed_once_and_apart():
    for critic in (None, tiny_classifier("llama", seed=1)):
        model = ActorCritic(
            load_causal_lm(tiny_model("llama"), peft_config=LoraConfig(target_modules=["q_proj"])), critic
        )
        policy, value = model.policy_parameters(), model.critic_parameters()
        everything = [p for p in model.parameters() if p.requires_grad]
        assert {id(p) for p in policy + value} == {id(p) for p in everything}
        assert len(policy) + len(value) == len(everything)
        assert policy
        assert value


def test_a_critic_of_its_own_from_every_kind_of_model(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path / "causal")
    policy = tiny_model("llama")
    for given in (policy, tiny_model("gpt2"), str(tmp_path / "causal"), tiny_classifier("llama", seed=1)):
        model = ActorCritic(policy, given)
        assert model.value_head is None
        assert token_values(model.value_model, batch()).shape == (2, 5)
    adapted = ActorCritic(policy, policy, value_peft_config=LoraConfig(r=4, target_modules=["q_proj"]))
    assert 0 < sum(p.numel() for p in adapted.critic_parameters()) < 5000


def test_shared_weights_and_pointless_options_are_refused():
    base = tiny_classifier("llama")
    policy = tiny_model("llama")
    policy.model = base.model
    with pytest.raises(ValueError, match="value_model shares its weights"):
        ActorCritic(policy, base)
    with pytest.raises(ValueError, match="value_peft_config needs a value_model"):
        ActorCritic(policy, value_peft_config=LoraConfig())


def test_the_policy_speaks_for_both():
    policy = tiny_model("llama").eval()
    model = ActorCritic(policy, tiny_classifier("llama"))
    assert torch.equal(model(IDS).logits, policy(IDS).logits)
    assert model.config is policy.config
    assert model.device == policy.device
    assert model.dtype == torch.float32
    model.generation_config = "mine"
    assert policy.generation_config == "mine"


@pytest.mark.parametrize(
    "adapter", [None, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)]
)
def test_checkpointing_reaches_both_and_changes_no_gradient(adapter):
    gradients = []
    for on in (False, True):
        torch.manual_seed(0)
        model = ActorCritic(
            load_causal_lm(tiny_model("llama"), peft_config=adapter), tiny_classifier("llama")
        ).train()
        assert model.is_gradient_checkpointing is False
        if on:
            recompute_activations(model)
            assert model.is_activation_checkpointing
            for part in (model.policy, model.value_model):
                assert any(getattr(m, "gradient_checkpointing", False) for m in part.modules())
        (score(model.policy, batch()).logps.sum() + token_values(model.value_model, batch()).sum()).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients)
    model.gradient_checkpointing_disable()
    assert not model.is_activation_checkpointing
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing


def test_a_critic_comes_back_from_disk(tmp_path):
    lora = LoraConfig(r=4, target_modules=["q_proj"])
    for name, value, adapter in [
        ("head", None, None),
        ("model", tiny_classifier("llama", seed=1), None),
        ("adapter", tiny_model("llama"), lora),
    ]:
        model = ActorCritic(tiny_model("llama"), value, value_peft_config=adapter)
        for parameter in model.critic_parameters():
            parameter.data.normal_(std=0.1)
        expected = {n: t.clone() for n, t in model.critic.state_dict().items()}
        model.save_critic(tmp_path / name)
        for parameter in model.critic_parameters():
            parameter.data.zero_()
        model.load_critic(tmp_path / name)
        assert all(torch.equal(t, expected[n]) for n, t in model.critic.state_dict().items())


def test_a_saved_critic_is_a_stock_classifier(tmp_path):
    model = ActorCritic(tiny_model("llama"), tiny_model("llama"))
    model.save_critic(tmp_path)
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(sequence_scores(stock, batch()), sequence_scores(model.value_model.eval(), batch()))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"value_head\.safetensors"):
        ActorCritic(tiny_model("llama")).load_critic(tmp_path)
    with pytest.raises(ValueError, match=r"config\.json"):
        ActorCritic(tiny_model("llama"), tiny_classifier("llama")).load_critic(tmp_path)
