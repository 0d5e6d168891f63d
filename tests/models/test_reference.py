"""The reference is the policy at step 0, whatever kind it is of, and scoring with it changes nothing."""

import pytest
import torch
from peft import LoraConfig, PeftModel

from tests.builders import tiny_model
from trellis.models import Reference, disable_dropout, load_causal_lm
from trellis.scoring import score
from trellis.types import TokenBatch


def batch():
    ids = [[0, 20, 30, 40, 50, 1], [0, 21, 31, 1], [0, 60, 61, 62, 1]]
    return TokenBatch.from_lists(ids, [[0, 0] + [1] * (len(row) - 2) for row in ids], prompt_len=[2, 2, 2])


def lora(**changes):
    return LoraConfig(r=4, lora_dropout=0.3, target_modules=["q_proj", "v_proj"], **changes)


def trained(model):
    """The same LoRA model with weights as if it had been trained."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.2, generator=generator)
    return model


def state_of(model):
    """Everything that a visit could leave changed."""
    peft = (model.active_adapter, sorted(model.peft_config)) if isinstance(model, PeftModel) else None
    return (
        peft,
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        {n: t.clone() for n, t in model.state_dict().items()},
    )


def assert_same_state(model, before):
    now = state_of(model)
    assert now[:3] == before[:3]
    assert all(torch.equal(now[3][n], t) for n, t in before[3].items())
    assert now[3].keys() == before[3].keys()


def full():
    return tiny_model("llama"), {}


def fresh_lora():
    return load_causal_lm(tiny_model("llama"), peft_config=lora()), {}


def trained_lora():
    return trained(load_causal_lm(tiny_model("llama"), peft_config=lora())), {}


def pissa():
    return load_causal_lm(tiny_model("llama"), peft_config=lora(init_lora_weights="pissa")), {}


def dora_with_saved_head():
    return load_causal_lm(
        tiny_model("llama"), peft_config=lora(use_dora=True, modules_to_save=["lm_head"])
    ), {}


def named_adapter():
    model = trained(load_causal_lm(tiny_model("llama"), peft_config=lora()))
    model.add_adapter("start", lora(task_type="CAUSAL_LM"))
    weights = dict(model.named_parameters())
    for name, parameter in weights.items():
        if ".start." in name:
            parameter.data.copy_(weights[name.replace(".start.", ".default.")].data)
    return model, {"ref_adapter_name": "start"}


def given_model():
    return tiny_model("llama"), {"ref_model": tiny_model("llama").train()}


KINDS = {
    "copy": full,
    "base": fresh_lora,
    "snapshot": trained_lora,
    "snapshot of pissa": pissa,
    "snapshot of a saved head": dora_with_saved_head,
    "adapter": named_adapter,
    "model": given_model,
}


@pytest.mark.parametrize("kind", KINDS)
def test_kl_is_exactly_zero_at_step_0_and_nothing_is_left_changed(kind):
    policy, arguments = KINDS[kind]()
    disable_dropout(policy)
    policy.train()
    reference = Reference.of(policy, **arguments)
    assert reference.kind == kind.split(" ")[0]
    before = state_of(policy)
    logps = score(policy, batch()).logps.detach()
    with reference.active(policy) as model:
        assert not model.training
        ref = score(model, batch()).logps
    assert ref.requires_grad is False
    assert torch.equal(logps, ref)
    assert float(logps.abs().sum()) > 1
    assert_same_state(policy, before)


@pytest.mark.parametrize("kind", KINDS)
def test_training_moves_the_policy_and_not_the_reference(kind):
    policy, arguments = KINDS[kind]()
    disable_dropout(policy)
    reference = Reference.of(policy, **arguments)
    start = score(policy, batch()).logps.detach()
    optimizer = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):
        (-score(policy, batch()).logps.sum() / 10).backward()
        optimizer.step()
        optimizer.zero_grad()
        with reference.active(policy) as model:
            assert torch.equal(score(model, batch()).logps, start)
    assert not torch.allclose(score(policy, batch()).logps, start)


def test_a_visit_between_forward_and_backward_leaves_the_gradient_alone():
    gradients = []
    for visit in (False, True):
        torch.manual_seed(0)
        policy, _ = trained_lora()
        policy.eval()
        reference = Reference.of(policy)
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.data.mul_(1.5)
        loss = score(policy, batch()).logps.sum()
        if visit:
            with reference.active(policy) as model:
                score(model, batch())
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None]))
    assert torch.equal(*gradients)


def test_everything_is_restored_when_scoring_fails():
    for make in (fresh_lora, trained_lora, named_adapter):
        policy, arguments = make()
        policy.train()
        reference = Reference.of(policy, **arguments)
        # A flag that switching adapters would lose: one layer of the trained adapter is frozen by its owner.
        next(p for n, p in policy.named_parameters() if "lora_A.default" in n).requires_grad_(False)
        before = state_of(policy)

        def fail(reference=reference, policy=policy):
            with reference.active(policy):
                raise RuntimeError("stop")

        with pytest.raises(RuntimeError, match="stop"):
            fail()
        assert_same_state(policy, before)


def test_a_trained_adapters_checkpoint_holds_the_policy_adapter_only(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path / "base")
    policy = trained(load_causal_lm(tmp_path / "base", peft_config=lora()))
    Reference.of(policy)
    policy.save_pretrained(tmp_path / "adapter")
    assert not [p.name for p in (tmp_path / "adapter").iterdir() if p.is_dir()]
    again = load_causal_lm(tmp_path / "adapter")
    assert torch.equal(score(again.eval(), batch()).logps, score(policy.eval(), batch()).logps)
    assert Reference.of(again).kind == "snapshot"


def test_a_frozen_copy_never_trains():
    reference = Reference.of(tiny_model("llama").train())
    assert reference.model is not None
    assert not reference.model.training
    assert not any(p.requires_grad for p in reference.model.parameters())


def test_a_named_reference_adapter_is_frozen_and_the_policy_adapter_is_active():
    policy, _ = named_adapter()
    Reference.of(policy, ref_adapter_name="default", model_adapter_name="start")
    assert policy.active_adapter == "start"
    trainable = {n for n, p in policy.named_parameters() if p.requires_grad}
    assert trainable
    assert all(".start." in n for n in trainable)


def test_a_reference_that_would_follow_the_policy_is_refused():
    policy = tiny_model("llama")
    with pytest.raises(ValueError, match="ref_model=None"):
        Reference.of(policy, policy)
    base = tiny_model("llama")
    adapted = load_causal_lm(base, peft_config=lora())
    with pytest.raises(ValueError, match="shares its weights"):
        Reference.of(adapted, base)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ref_adapter_name": "old"}, r"no such adapter; it has \['default', 'start'\]"),
        ({"model_adapter_name": "old"}, "no such adapter"),
        ({"ref_adapter_name": "default"}, "adapter that is trained"),
        ({"ref_adapter_name": "start", "ref_model": tiny_model("llama")}, "pass one of them"),
    ],
)
def test_wrong_adapter_names_say_what_there_is(arguments, message):
    policy, _ = named_adapter()
    with pytest.raises(ValueError, match=message):
        Reference.of(policy, **arguments)


def test_adapter_names_need_an_adapter():
    with pytest.raises(ValueError, match="needs a peft model"):
        Reference.of(tiny_model("llama"), ref_adapter_name="ref")
