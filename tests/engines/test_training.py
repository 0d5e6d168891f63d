"""GRPO trained over HTTP, and two processes that share a server."""

from __future__ import annotations

import pytest
import torch

from tests.builders import tiny_model, tiny_tokenizer
from tests.engines.standin import VLLM, free_port, serving
from tests.ranks import run_ranks
from tests.trainers.ahead_runs import ahead, weights
from tests.trainers.group_runs import build, logged
from trellis.engines import VllmColocate, VllmServer
from trellis.rollout import SamplingParams, sample
from trellis.trainers.grpo import GRPOTrainer
from trellis.trainers.grpo_config import GRPOConfig

PROMPTS = ["the battery lasts", "the screen", "it is easy", "very good"]


def letters(completions, **_):
    """The share of letters in each completion."""
    return [sum(c.isalpha() for c in text) / max(1, len(text)) for text in completions]


def trainer_of(folder, model, **more):
    settings = {
        "output_dir": str(folder),
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
        "learning_rate": 1e-3,
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "num_generations": 2,
        "max_completion_length": 6,
        **more,
    }
    return GRPOTrainer(
        model=model,
        args=GRPOConfig(**settings),
        reward_funcs=letters,
        processing_class=tiny_tokenizer(),
        train_dataset=[{"prompt": prompt} for prompt in PROMPTS],
    )


@pytest.fixture
def saved(llama, tmp_path):
    """The directory of a saved model."""
    llama.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_grpo_over_http_trains_as_it_does_alone(saved, tmp_path):
    alone = trainer_of(tmp_path / "alone", tiny_model("llama"))
    alone.train()
    with serving(saved) as server:
        over = trainer_of(
            tmp_path / "over",
            tiny_model("llama"),
            use_vllm=True,
            vllm_server_host="127.0.0.1",
            vllm_server_port=server.port,
            vllm_group_port=free_port(),
            vllm_server_timeout=30,
        )
        over.train()
        sent = {name: p.clone() for name, p in server.engine.llm.module.named_parameters()}
        for (name, a), (_, b) in zip(
            over.model.named_parameters(), alone.model.named_parameters(), strict=True
        ):
            torch.testing.assert_close(a, b, msg=name)
            assert not torch.equal(a, sent[name])  # the last rollout was sampled before the last step
        over.evaluate()
        for name, parameter in over.model.named_parameters():
            assert torch.equal(parameter, server.engine.llm.module.get_parameter(name))
        over.collector.engine.close()


def test_two_servers_sample_ahead_what_one_process_would(saved, tmp_path):
    alone = ahead("GRPO", tmp_path / "alone", vllm_importance_sampling_mode="token_truncate", max_steps=6)
    alone.train()
    ports = free_port()
    with serving(saved) as one, serving(saved) as two:
        over = build(
            "GRPO",
            tmp_path / "over",
            rollout_staleness=1,
            num_iterations=2,
            max_steps=6,
            report_to="none",
            use_vllm=True,
            vllm_server_base_url=f"http://127.0.0.1:{one.port},http://127.0.0.1:{two.port}",
            vllm_group_port=ports,
            vllm_server_timeout=30,
            vllm_importance_sampling_mode="token_truncate",
        )
        over.train()
        assert all(len(server.engine.llm.asked) >= 3 * 4 for server in (one, two))  # half of each rollout
    torch.testing.assert_close(weights(over), weights(alone), atol=2e-4, rtol=1e-3)
    assert max(logged(over, "sampling/sync_difference")) < 1e-5
    assert min(logged(over, "sampling/logp_difference")[2:]) > 1e-4  # the policy has moved on


def test_a_server_is_named_once(tmp_path):
    with pytest.raises(ValueError, match="names a server twice"):
        build("GRPO", tmp_path, use_vllm=True, vllm_server_base_url="http://a:1, http://a:1")


def two_ranks(port, group_port):
    """One rank asks once, the other twice; and once more, where rank 1 breaks after its first answer."""
    from accelerate import PartialState

    state = PartialState(cpu=True)
    engine = VllmServer(f"http://127.0.0.1:{port}", timeout=30, group_port=group_port, accelerator=state)
    engine.sync(tiny_model("llama"), 0)
    done = [asked(engine, state.process_index, fails) for fails in (False, True)]
    engine.close()
    return {"done": done, "version": engine.version}


def asked(engine, rank, fails):
    """What a rank got, and the error it ended with."""
    found = []
    try:
        with engine.together():
            for turn in range(rank + 1):
                params = SamplingParams(4 + turn, stop_ids=frozenset([1]))
                prompts = [[5 + rank, 6, 7 + turn]] * (1 + rank)
                found.append(
                    [c.ids for c in engine(prompts, params, seeds=[10 * rank + turn] * len(prompts))]
                )
                if fails and rank == 1:
                    raise ValueError("the tool broke")
    except (RuntimeError, ValueError) as caught:
        return {"found": found, "error": str(caught)}
    return {"found": found, "error": ""}


def expected(rank, turn):
    params = SamplingParams(4 + turn, stop_ids=frozenset([1]))
    (one,) = sample(tiny_model("llama"), [[5 + rank, 6, 7 + turn]], params, seeds=[10 * rank + turn])
    return [one.ids] * (1 + rank)


@pytest.mark.slow
def test_ranks_ask_together_until_none_asks(saved):
    with serving(saved) as server:
        zero, one = run_ranks(two_ranks, port=server.port, group_port=free_port())
        rounds = server.engine.llm.events.count("generate")
    assert zero["version"] == one["version"]
    assert zero["done"][0] == {"found": [expected(0, 0)], "error": ""}
    assert one["done"][0] == {"found": [expected(1, 0), expected(1, 1)], "error": ""}
    assert rounds == 3  # both ranks' first turns in one request, the second turn alone; the first turns again
    assert zero["done"][1] == {"found": [expected(0, 0)], "error": "on rank 1: ValueError: the tool broke"}
    assert one["done"][1] == {"found": [expected(1, 0)], "error": "the tool broke"}


def test_a_colocated_engine_samples_with_the_weights_it_was_given(saved, llama):
    with torch.no_grad():
        for parameter in llama.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    engine = VllmColocate(str(saved), enable_sleep_mode=True, max_model_length=64, vllm=VLLM)
    engine.sync(llama, 0)
    params = SamplingParams(6, temperature=0.8, stop_ids=frozenset([1]))
    with engine.together():
        found = engine([[5, 6]], params, n=2, seeds=[1, 2])
        assert not engine._host.llm.asleep
    assert engine._host.llm.asleep
    alone = sample(llama, [[5, 6]], params, n=2, seeds=[1, 2])
    assert [c.ids for c in found] == [c.ids for c in alone]
    loads = engine._host.llm.events.count("trellis_load")
    engine.sync(llama, 0)
    assert engine([[5, 6]], params, seeds=[1])[0].ids == alone[0].ids  # it wakes by itself
    assert engine._host.llm.events.count("trellis_load") == loads == len(list(llama.parameters()))
    engine.close()
