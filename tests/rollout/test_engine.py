"""The in-process sampler agrees with plain forward passes, and a row's result is its own."""

import copy

import pytest
import torch
from torch import nn
from transformers import GenerationConfig

from tests.builders import KINDS, tiny_model
from trellis.rollout import RolloutStats, SamplingParams, sample
from trellis.rollout.cache import ROOM

PROMPTS = [
    [7, 9, 11, 30, 41, 8, 100, 12, 60, 61, 62, 63],
    [5, 6],
    [90, 33, 21, 200, 17],
    [8],
    [44, 45, 46, 47, 48],
]


# The name that every supported transformers knows (peft uses it too); the newest announce another one.
renamed = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")


def token_logps(model, prompt, ids, temperature):
    """log p of each completion token from one plain forward pass over the whole row."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0].float() / temperature
    logps = logits.log_softmax(-1)
    return torch.stack([logps[len(prompt) + t - 1, token] for t, token in enumerate(ids)])


def common_stop(model, seeds, **params):
    """A token that the model samples often, so that rows end at different lengths."""
    free = sample(model, PROMPTS, SamplingParams(**params), seeds=seeds)
    tokens = torch.tensor([token for c in free for token in c.ids[2:]])
    return frozenset([int(tokens.mode().values)])


@pytest.mark.parametrize("kind", KINDS)
def test_logps_are_those_of_a_plain_forward_pass(kind):
    model = tiny_model(kind)
    params = SamplingParams(max_new_tokens=20, temperature=0.7, stop_ids=frozenset([3, 77]))
    for prompt, done in zip(PROMPTS, sample(model, PROMPTS, params, seeds=range(5)), strict=True):
        expected = token_logps(model, prompt, done.ids, 0.7)
        assert torch.allclose(torch.tensor(done.logps), expected, atol=1e-5)
        assert done.sampler_logps == done.logps


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_logps_stay_right_while_the_cache_grows_and_rows_leave(kind):
    model = tiny_model(kind)
    stop = common_stop(model, range(5), max_new_tokens=40)
    params = SamplingParams(max_new_tokens=2 * ROOM + 20, stop_ids=stop)
    done = sample(model, PROMPTS, params, n=2, seeds=range(10), rows=7)
    assert max(map(len, done)) > ROOM
    assert min(map(len, done)) < ROOM
    for i, completion in enumerate(done):
        expected = token_logps(model, PROMPTS[i // 2], completion.ids, 1.0)
        assert torch.allclose(torch.tensor(completion.logps), expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_is_generate_without_padding(kind):
    model = tiny_model(kind)
    ours = sample(model, PROMPTS, SamplingParams(max_new_tokens=12, greedy=True), seeds=[0] * 5)
    plain = GenerationConfig(max_new_tokens=12, do_sample=False, pad_token_id=0)
    model.generation_config.eos_token_id = None
    for prompt, done in zip(PROMPTS, ours, strict=True):
        ids = torch.tensor([prompt])
        theirs = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=plain)
        assert done.ids == theirs[0, len(prompt) :].tolist()
        assert done.finish_reason == "length"
        assert done.sampler_logps == [0.0] * 12


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_a_row_does_not_depend_on_its_company(kind):
    model = tiny_model(kind)
    seeds = list(range(100, 115))
    stop = common_stop(model, seeds[:5], max_new_tokens=16)
    params = SamplingParams(
        max_new_tokens=16, temperature=0.9, top_k=50, top_p=0.9, min_p=0.01, stop_ids=stop
    )
    together = sample(model, PROMPTS, params, n=3, seeds=seeds)
    for rows in (1, 2, 3, 4, 7):
        apart = sample(model, PROMPTS, params, n=3, seeds=seeds, rows=rows)
        assert [c.ids for c in apart] == [c.ids for c in together]
        for a, b in zip(apart, together, strict=True):
            assert torch.allclose(torch.tensor(a.logps), torch.tensor(b.logps), atol=1e-5)
    backwards = sample(
        model,
        PROMPTS[::-1],
        params,
        n=3,
        seeds=[s for i in (4, 3, 2, 1, 0) for s in seeds[3 * i : 3 * i + 3]],
    )
    for i in range(5):
        assert [c.ids for c in backwards[3 * i : 3 * i + 3]] == [
            c.ids for c in together[12 - 3 * i : 15 - 3 * i]
        ]


def test_a_longer_limit_continues_the_same_text(llama):
    short = sample(llama, PROMPTS, SamplingParams(max_new_tokens=5), seeds=range(5))
    long = sample(llama, PROMPTS, SamplingParams(max_new_tokens=40), seeds=range(5))
    assert [c.ids for c in short] == [c.ids[:5] for c in long]


def test_every_bit_of_a_seed_counts(llama):
    params = SamplingParams(max_new_tokens=8)
    texts = [
        sample(llama, [[5, 6]], params, seeds=[s])[0].ids for s in (1, 2, 1 + (1 << 32), 1 + (1 << 40), 1)
    ]
    assert texts[0] == texts[4]
    assert len({tuple(t) for t in texts}) == 4


def test_samples_of_one_prompt_differ_and_the_prompt_is_read_once(llama):
    stats = RolloutStats()
    params = SamplingParams(max_new_tokens=6)
    done = sample(llama, [PROMPTS[0]], params, n=4, seeds=range(4), stats=stats)
    assert len({tuple(c.ids) for c in done}) == 4
    assert stats.prefill_tokens == len(PROMPTS[0])
    sliced = sample(llama, [PROMPTS[0]], params, n=4, seeds=range(4), rows=3, stats=stats)
    assert stats.prefill_tokens == 2 * len(PROMPTS[0])
    assert [c.ids for c in sliced] == [c.ids for c in done]


def test_finished_rows_cost_nothing(llama):
    stop = common_stop(llama, range(5), max_new_tokens=24)
    stats = RolloutStats()
    params = SamplingParams(max_new_tokens=24, stop_ids=stop)
    done = sample(llama, PROMPTS, params, n=4, seeds=range(20), stats=stats)
    lengths = [len(c) for c in done]
    assert min(lengths) < max(lengths)
    # The last token of a row is never read again: l tokens take l − 1 steps after the prefill.
    assert stats.row_steps == sum(length - 1 for length in lengths)
    assert stats.decode_steps == max(lengths) - 1


def test_a_row_ends_with_its_stop_token(llama):
    stop = common_stop(llama, range(5), max_new_tokens=24)
    done = sample(llama, PROMPTS, SamplingParams(max_new_tokens=24, stop_ids=stop), n=4, seeds=range(20))
    assert {c.finish_reason for c in done} == {"stop", "length"}
    for c in done:
        stopped = c.finish_reason == "stop"
        assert sum(token in stop for token in c.ids) == stopped
        assert (c.ids[-1] in stop) == stopped
        assert stopped or len(c) == 24
        assert len(c.ids) == len(c.logps) == len(c.sampler_logps)


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_repetition_is_penalised_as_by_generate(kind):
    model = tiny_model(kind)
    params = SamplingParams(max_new_tokens=12, greedy=True, repetition_penalty=1.7)
    ours = sample(model, PROMPTS, params, n=2, seeds=range(10))
    plain = GenerationConfig(max_new_tokens=12, do_sample=False, repetition_penalty=1.7, pad_token_id=0)
    model.generation_config.eos_token_id = None
    for i, done in enumerate(ours):
        ids = torch.tensor([PROMPTS[i // 2]])
        theirs = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=plain)
        assert done.ids == theirs[0, ids.shape[1] :].tolist()
        expected = token_logps(model, PROMPTS[i // 2], done.ids, 1.0)
        assert torch.allclose(torch.tensor(done.logps), expected, atol=1e-5)


def test_a_limit_of_its_own_ends_a_row_and_changes_no_other(llama):
    free = sample(llama, PROMPTS, SamplingParams(max_new_tokens=9), seeds=range(5))
    limits = [4, 9, 1, 20, 6]
    cut = sample(llama, PROMPTS, SamplingParams(max_new_tokens=9), seeds=range(5), limits=limits)
    assert [c.ids for c in cut] == [c.ids[:n] for c, n in zip(free, limits, strict=True)]
    assert {c.finish_reason for c in cut} == {"length"}


def test_a_stop_token_inside_the_prompt_stops_nothing(llama):
    params = SamplingParams(max_new_tokens=4, greedy=True)
    free = sample(llama, [[5, 6, 7]], params, seeds=[0])[0]
    again = sample(llama, [[5, 6, 7]], SamplingParams(4, greedy=True, stop_ids=frozenset([6])), seeds=[0])[0]
    assert 6 not in free.ids
    assert again.ids == free.ids


@pytest.mark.parametrize(("kind", "padding"), [("llama", 0), ("gemma2", 2 * 1 + 2 * 1)])
def test_no_padding_where_layers_are_plain_and_elsewhere_similar_lengths_share_a_batch(kind, padding):
    stats = RolloutStats()
    prompts = [[5] * length for length in (1, 9, 2, 10, 1, 9)]
    sample(tiny_model(kind), prompts, SamplingParams(max_new_tokens=2), seeds=range(6), rows=3, stats=stats)
    assert stats.pad_tokens == padding
    assert stats.prefill_tokens == sum(map(len, prompts))


def test_the_model_is_left_as_found(llama):
    llama.train()
    llama.model.layers[1].eval()
    llama.config.use_cache = False
    llama.generation_config = GenerationConfig(
        repetition_penalty=9.0,
        top_k=1,
        do_sample=True,
        max_length=3,
        eos_token_id=1,
        suppress_tokens=[5, 6, 7],
    )
    modes = [m.training for m in llama.modules()]
    config, generation = copy.deepcopy(llama.config), copy.deepcopy(llama.generation_config)
    weights = copy.deepcopy(llama.state_dict())
    done = sample(llama, PROMPTS, SamplingParams(max_new_tokens=9), seeds=range(5))
    assert [m.training for m in llama.modules()] == modes
    assert llama.config.to_dict() == config.to_dict()
    assert llama.generation_config.to_dict() == generation.to_dict()
    assert all(torch.equal(v, weights[k]) for k, v in llama.state_dict().items())
    assert all(p.grad is None for p in llama.parameters())
    fresh = tiny_model("llama")
    assert [c.ids for c in done] == [
        c.ids for c in sample(fresh, PROMPTS, SamplingParams(max_new_tokens=9), seeds=range(5))
    ]


def test_modes_are_restored_after_an_error(llama):
    llama.train()
    with torch.no_grad():
        llama.lm_head.weight[4] = float("nan")
    with pytest.raises(FloatingPointError, match=r"row 0, new token 0.*NaN"):
        sample(llama, PROMPTS, SamplingParams(max_new_tokens=3), seeds=range(5))
    assert all(m.training for m in llama.modules())


def test_an_infinite_logit_is_reported_for_its_row(llama):
    with torch.no_grad():
        llama.model.embed_tokens.weight[200] = float("inf")
    with pytest.raises(FloatingPointError, match="row 2, new token 0"):
        sample(llama, PROMPTS, SamplingParams(max_new_tokens=3, greedy=True), seeds=range(5))


@renamed
def test_dropout_and_gradient_checkpointing_do_not_reach_sampling():
    params = SamplingParams(max_new_tokens=10)
    plain = sample(tiny_model("llama"), PROMPTS, params, seeds=range(5))
    model = tiny_model("llama", attention_dropout=0.5)
    model.gradient_checkpointing_enable()
    model.train()
    assert [c.ids for c in sample(model, PROMPTS, params, seeds=range(5))] == [c.ids for c in plain]
    assert model.is_gradient_checkpointing


@renamed
def test_an_adapter_is_sampled_with():
    from peft import LoraConfig, get_peft_model

    model = tiny_model("llama")
    base = sample(model, PROMPTS, SamplingParams(max_new_tokens=8), seeds=range(5))
    adapted = get_peft_model(model, LoraConfig(r=2, lora_dropout=0.5, target_modules=["q_proj", "v_proj"]))
    adapted.train()
    assert [c.ids for c in sample(adapted, PROMPTS, SamplingParams(max_new_tokens=8), seeds=range(5))] == [
        c.ids for c in base
    ]
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight)
    done = sample(adapted, PROMPTS, SamplingParams(max_new_tokens=8), seeds=range(5))
    assert [c.ids for c in done] != [c.ids for c in base]
    adapted.eval()
    for prompt, c in zip(PROMPTS, done, strict=True):
        assert torch.allclose(torch.tensor(c.logps), token_logps(adapted, prompt, c.ids, 1.0), atol=1e-4)


def test_autocast_is_the_callers_choice(llama):
    params = SamplingParams(max_new_tokens=4, greedy=True)
    exact = sample(llama, PROMPTS, params, seeds=range(5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = sample(llama, PROMPTS, params, seeds=range(5))
        with torch.no_grad():
            first = llama(torch.tensor([PROMPTS[1]])).logits[0, -1].float().log_softmax(-1).max()
    assert rough[1].logps[0] == pytest.approx(float(first), abs=1e-3)
    assert rough[1].logps != exact[1].logps


def test_nothing_asked_nothing_done(llama):
    assert sample(llama, [], SamplingParams(max_new_tokens=3), seeds=[]) == []


@pytest.mark.parametrize(
    ("prompts", "changes", "words"),
    [
        ([[5], []], {"seeds": [1, 2]}, "prompt 1 has no tokens"),
        ([[5], [6, 5000]], {"seeds": [1, 2]}, "prompt 1 holds token id 5000"),
        ([[5], [-1, 6]], {"seeds": [1, 2]}, "prompt 1 holds token id -1"),
        ([[5], [6]], {"seeds": [1]}, "need 2 seeds, found 1"),
        ([[5], [6]], {"seeds": [1, 2], "n": 2}, "need 4 seeds, found 2"),
        ([[5]], {"seeds": [], "n": 0}, "n must be at least 1"),
        ([[5]], {"seeds": [1], "rows": 0}, "rows must be at least 1"),
        ([[5]], {"seeds": [1], "limits": [0]}, "limits must be 1 numbers"),
        ([[5]], {"seeds": [1], "limits": [3, 3]}, "limits must be 1 numbers"),
    ],
)
def test_bad_requests_are_refused(llama, prompts, changes, words):
    with pytest.raises(ValueError, match=words):
        sample(llama, prompts, SamplingParams(max_new_tokens=3), **changes)


def test_learned_positions_are_not_overrun():
    model = tiny_model("gpt2", n_positions=16)
    with pytest.raises(
        ValueError, match=r"12 tokens and 5 new ones exceed the model's 16 positions.*to 11 tokens"
    ):
        sample(model, PROMPTS, SamplingParams(max_new_tokens=5), seeds=range(5))
    assert len(sample(model, PROMPTS, SamplingParams(max_new_tokens=4), seeds=range(5))) == 5


def test_what_is_not_a_language_model_is_refused():
    with pytest.raises(TypeError, match="found Linear"):
        sample(nn.Linear(2, 2), [[1]], SamplingParams(max_new_tokens=3), seeds=[0])
