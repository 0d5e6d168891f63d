"""Sampling in other processes: the same completions however many there are, by the weights last handed over."""

from __future__ import annotations

import copy
import os
import signal

import pytest
import torch
from peft import LoraConfig

from tests.builders import recompute_activations, tiny_model
from trellis.engines import ProcessEngine, Several
from trellis.engines.module_copy import Outgoing, incoming
from trellis.engines.several import shares
from trellis.models.adapters import add_adapter
from trellis.rollout import InProcess, SamplingParams, sample

PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]
PARAMS = SamplingParams(8, temperature=0.7, top_k=50, stop_ids=frozenset(range(1, 30)))
SEEDS = list(range(6))


def moved(model, by=0.05):
    """A copy after some training."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return other


def same(found, model):
    """Whether these are the completions of `model`."""
    alone = sample(model, PROMPTS, PARAMS, n=2, seeds=SEEDS)
    for one, other in zip(found, alone, strict=True):
        if one.ids != other.ids or one.finish_reason != other.finish_reason:
            return False
        assert one.logps == pytest.approx(other.logps, abs=1e-5)
        assert one.sampler_logps == pytest.approx(other.sampler_logps, abs=1e-5)
    return True


@pytest.mark.slow
def test_two_processes_sample_as_this_one_would(tokenizer):
    model = tiny_model("gpt2", tokenizer)
    after = moved(model)
    engine = ProcessEngine(2, rows=3)
    with pytest.raises(ValueError, match="call sync"):
        engine(PROMPTS, PARAMS, n=2, seeds=SEEDS)
    engine.sync(model, 0)
    names = [process.process.pid for process in engine._processes]
    given = copy.deepcopy(model)
    with torch.no_grad():  # whatever happens to the model now, they have its weights of then
        for parameter in model.parameters():
            parameter.zero_()
    assert same(engine(PROMPTS, PARAMS, n=2, seeds=SEEDS), given)
    assert engine.stats.sampled_tokens == sum(map(len, sample(given, PROMPTS, PARAMS, n=2, seeds=SEEDS)))
    engine.sync(after, 1)
    assert same(engine(PROMPTS, PARAMS, n=2, seeds=SEEDS), after)
    assert [process.process.pid for process in engine._processes] == names
    with torch.autocast("cpu", torch.bfloat16):
        rough = engine(PROMPTS, PARAMS, n=2, seeds=SEEDS)
        expected = sample(after, PROMPTS, PARAMS, n=2, seeds=SEEDS)
    assert [c.ids for c in rough] == [c.ids for c in expected]
    assert rough[0].logps == pytest.approx(expected[0].logps, abs=1e-5)
    assert rough[0].logps != pytest.approx(
        sample(after, PROMPTS, PARAMS, n=2, seeds=SEEDS)[0].logps, abs=1e-5
    )
    assert engine([], PARAMS, seeds=[]) == []
    os.kill(names[1], signal.SIGKILL)
    with pytest.raises(
        ConnectionError, match=r"process 2 of 2 .* was ended by SIGKILL.*resume_from_checkpoint"
    ):
        engine(PROMPTS, PARAMS, n=2, seeds=SEEDS)
    assert engine._processes == []


@pytest.mark.slow
def test_what_sampling_raises_there_is_raised_here(llama):
    engine = ProcessEngine()
    with torch.no_grad():
        llama.get_input_embeddings().weight.fill_(torch.nan)
    engine.sync(llama, 0)
    (process,) = engine._processes
    with pytest.raises(FloatingPointError, match="in sampling process 1 of 1: row 0, new token 0"):
        engine([[5]], PARAMS, seeds=[1])
    assert process.process.poll() is not None


def arrived(outgoing):
    """The model on the other side, in this process."""
    try:
        return incoming(outgoing.module, outgoing.path, outgoing.slots, torch.device("cpu"))
    finally:
        outgoing.unlink()


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "lora"])
def test_a_model_arrives_whole_and_follows(kind, tokenizer):
    model = tiny_model("llama" if kind == "lora" else kind, tokenizer)
    if kind == "lora":
        recompute_activations(model)
        model.enable_input_require_grads()
        config = LoraConfig(r=4, task_type="CAUSAL_LM", target_modules=["q_proj"], use_dora=True)
        model = add_adapter(model, config, "CAUSAL_LM")
    outgoing = Outgoing(model)
    there, copies = arrived(outgoing)
    assert copies == []  # on a CPU there is one copy for all processes
    assert not os.path.exists(outgoing.path)
    after = moved(model)
    assert outgoing.fits(after)
    outgoing.refresh(after)
    ours, theirs = (dict(m.named_parameters(remove_duplicate=False)) for m in (after, there))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not any(parameter.requires_grad for parameter in there.parameters())
    assert len({id(p) for p in ours.values()}) == len({id(p) for p in theirs.values()})  # tied stays tied
    assert same(sample(there, PROMPTS, PARAMS, n=2, seeds=SEEDS), after)
    assert not outgoing.fits(tiny_model("llama", tokenizer))


def test_a_model_that_cannot_be_sent_is_named(llama):
    llama.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="LlamaForCausalLM cannot be sent.*lambda"):
        Outgoing(llama)


@pytest.mark.parametrize("options", [{"n": 0}, {"devices": []}])
def test_no_process_is_no_engine(options):
    with pytest.raises(ValueError, match="at least one process"):
        ProcessEngine(**options)


def test_parts_are_side_by_side_and_as_equal_as_can_be():
    assert [list(part) for part in shares(7, 3)] == [[0, 1, 2], [3, 4], [5, 6]]
    assert [list(part) for part in shares(1, 2)] == [[0], []]


def test_several_engines_are_one(llama):
    parts = [InProcess(), InProcess()]
    engine = Several(parts)
    engine.sync(llama, 0)
    assert engine.exact
    assert not engine.apart  # they sample with the model itself
    assert Several([ProcessEngine()]).apart
    assert same(engine(PROMPTS, PARAMS, n=2, seeds=SEEDS), llama)
    assert all(part.stats.sampled_tokens for part in parts)
    engine.close()
    assert [part.model for part in parts] == [None, None]


@pytest.mark.parametrize(
    ("rank", "world", "expected"), [(0, 2, [0, 2]), (1, 2, [1]), (2, 4, [2]), (3, 4, [0])]
)
def test_training_processes_share_the_engines_out(rank, world, expected):
    parts = [InProcess() for _ in range(3)]
    assert [parts.index(engine) for engine in Several(parts, rank=rank, world=world).mine] == expected


def test_one_engine_that_fails_is_the_answer(llama):
    engine = Several([InProcess(), InProcess()])
    with pytest.raises(ValueError, match="no model yet"):
        engine(PROMPTS, PARAMS, n=2, seeds=SEEDS)
    with pytest.raises(ValueError, match="at least one engine"):
        Several([])
