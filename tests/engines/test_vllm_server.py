"""VllmServer against `trellis vllm-serve` over loopback HTTP, with a vLLM that runs on the CPU in vLLM's place."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig

from tests.builders import tiny_model
from tests.engines.standin import free_port, serving
from trellis.engines import VllmServer, weights_of
from trellis.models.adapters import add_adapter, merged
from trellis.rollout import SamplingParams, sample

PROMPTS = [[5, 6, 7], [8, 9]]
PARAMS = SamplingParams(8, temperature=0.7, stop_ids=frozenset([1]))
SEEDS = [11, 12, 13, 14]


@pytest.fixture
def saved(llama, tmp_path):
    """The directory of a saved model."""
    llama.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def moved(llama):
    """The same model after some training."""
    other = copy.deepcopy(llama)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return other


def client(server, **options):
    options = {"timeout": 20.0, "group_port": free_port(), **options}
    return VllmServer(f"http://127.0.0.1:{server.port}", **options)


def test_the_server_samples_what_the_trained_model_would(saved, moved):
    with serving(saved) as server:
        engine = client(server)
        engine.sync(moved, 3)
        found = engine(PROMPTS, PARAMS, n=2, seeds=SEEDS)
        engine.close()
    alone = [sample(moved, [PROMPTS[i // 2]], PARAMS, seeds=[s])[0] for i, s in enumerate(SEEDS)]
    assert [c.ids for c in found] == [c.ids for c in alone]
    assert [c.finish_reason for c in found] == [c.finish_reason for c in alone]
    for one, other in zip(found, alone, strict=True):
        assert one.logps == pytest.approx(other.logps, abs=1e-6)
        assert one.sampler_logps == one.logps
    assert not engine.exact


def test_weights_are_sent_when_the_step_changed_and_the_cache_is_reset_after(saved, llama, moved):
    with serving(saved) as server:
        engine = client(server)
        engine.sync(llama, 0)
        engine.sync(moved, 0)
        events = server.engine.llm.events
        assert [e for e in events if e != "trellis_device"] == [
            "trellis_listen",
            "trellis_open",
            "trellis_receive",
            "reset_prefix_cache",
        ]
        engine.sync(moved, 1)
        assert events[-2:] == ["trellis_receive", "reset_prefix_cache"]
        for name, parameter in server.engine.llm.module.named_parameters():
            assert torch.equal(parameter, moved.get_parameter(name))


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "down_proj"]},
        {"target_modules": ["v_proj"], "use_dora": True},
        {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]},
    ],
    ids=["lora", "dora", "modules_to_save"],
)
def test_adapters_are_folded_into_copies_on_the_way(llama, options):
    model = add_adapter(llama, LoraConfig(r=4, task_type="CAUSAL_LM", **options), "CAUSAL_LM")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    before = {name: p.clone() for name, p in model.named_parameters()}
    expected = dict(merged(model).named_parameters())
    found = {w.name: w.read() for w in weights_of(model)}
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name].data)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_tied_weights_are_sent_once(tokenizer):
    model = tiny_model("gpt2", tokenizer)
    assert [w.name for w in weights_of(model)] == [name for name, _ in model.named_parameters()]


def test_greedy_filters_and_seeds_reach_the_engine(saved, llama):
    params = SamplingParams(4, top_k=5, top_p=0.8, min_p=0.05, stop_ids=frozenset([1, 2]))
    with serving(saved) as server:
        engine = client(server, regex="[a-z]+")
        engine.sync(llama, 0)
        engine(PROMPTS, params, n=2, seeds=SEEDS)
        asked = server.engine.llm.asked
        assert [a.seed for a in asked] == SEEDS
        assert {(a.top_k, a.top_p, a.min_p, a.max_tokens, a.temperature) for a in asked} == {
            (5, 0.8, 0.05, 4, 1.0)
        }
        assert {a.structured_outputs.regex for a in asked} == {"[a-z]+"}
        assert asked[0].stop_token_ids == [1, 2]
        (best,) = engine([[5, 6]], SamplingParams(4, greedy=True), seeds=[0])
        assert asked[-1].temperature == 0
    assert best.sampler_logps == [0.0] * 4
    assert max(best.logps) < 0
    assert best.ids == sample(llama, [[5, 6]], SamplingParams(4, greedy=True), seeds=[0])[0].ids


def test_another_model_is_refused_before_anything_is_sent(saved, tokenizer):
    other = tiny_model("qwen2", tokenizer)
    with (
        serving(saved) as server,
        pytest.raises(ValueError, match="has another model.*model_type llama for qwen2"),
    ):
        client(server).check(other)


def test_a_server_that_lost_its_weights_is_noticed(saved, llama):
    with serving(saved) as server:
        engine = client(server)
        engine.sync(llama, 0)
        server.version = None  # as after a restart
        with pytest.raises(ValueError, match="it was restarted, or another run uses it"):
            engine(PROMPTS, PARAMS, n=2, seeds=SEEDS)


def test_weights_of_another_version_after_sending_are_noticed(saved, llama):
    with serving(saved) as server:
        server.routes["POST", "/wait"] = lambda _: {"done": True, "weight_version": "another"}
        with pytest.raises(ValueError, match="has weights 'another' after it was sent.*another run use it"):
            client(server).sync(llama, 0)


def test_a_parameter_the_engine_does_not_know_is_named(saved, llama):
    llama.register_parameter("surplus", torch.nn.Parameter(torch.zeros(3)))
    with serving(saved) as server:
        engine = client(server)
        with pytest.raises(ConnectionError, match="parameter surplus .*no parameter of this model"):
            engine.sync(llama, 0)
        assert server.version is None


def test_no_weights_no_samples(saved):
    with serving(saved) as server, pytest.raises(ValueError, match="call sync"):
        client(server)(PROMPTS, PARAMS, n=2, seeds=SEEDS)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([[]], "prompt 0 has no tokens"),
        ([[3], [100_000]], "prompt 1 holds a token outside"),
        ([[3] * 30], "prompt 0 has 30 tokens; with 8 new ones that is more than the engine's 32"),
    ],
)
def test_prompts_that_cannot_be_answered_are_refused(saved, llama, prompts, message):
    with serving(saved, max_model_len=32) as server:
        engine = client(server)
        engine.sync(llama, 0)
        with pytest.raises(ValueError, match=message):
            engine(prompts, PARAMS, seeds=[0] * len(prompts))


def test_the_key_is_asked_for(saved, llama):
    with (
        serving(saved, key="right-key") as server,
        pytest.raises(ConnectionError, match="401.*TRELLIS_VLLM_KEY"),
    ):
        client(server).check(llama)


def test_a_taken_port_is_one_error(saved, llama):
    import socket

    with serving(saved) as server, socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        engine = client(server, group_port=taken.getsockname()[1], timeout=2.0)
        with pytest.raises(ConnectionError, match="cannot be listened on.*vllm_group_port"):
            engine.sync(llama, 0)
