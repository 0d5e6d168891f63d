"""What judges say, in which order they are asked, and what an answer that cannot be read becomes."""

from __future__ import annotations

import math
import os
import sys

import pytest
import torch

import trellis
from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer
from tests.engines.test_http import answering, said
from trellis.judges import (
    AllTrueJudge,
    BaseBinaryJudge,
    BasePairwiseJudge,
    CausalLMJudge,
    HfPairwiseJudge,
    OpenAIPairwiseJudge,
    OrderedJudge,
    PairRMJudge,
    RewardModelJudge,
    RewardModelRankJudge,
    compare,
    judge_named,
)
from trellis.rewards import RewardError

PROMPTS = [f"question {i}" for i in range(40)]
PAIRS = [[f"good {i}", f"bad {i}"] for i in range(40)]
MIXED = [pair[:: (-1) ** i] for i, pair in enumerate(PAIRS)]


class First(OrderedJudge):
    """Always the answer that it sees first."""

    def ask(self, asked):
        return [1.0] * len(asked)


class Good(OrderedJudge):
    """The good one; of `unread` prompts it cannot say."""

    unread = ()

    def ask(self, asked):
        return [None if p in self.unread else float(a.startswith("good")) for p, a, _ in asked]


class Longer(BasePairwiseJudge):
    """A judge as TRL's users write them: ranks alone."""

    def judge(self, prompts, completions, shuffle_order=True):
        return [int(len(b) > len(a)) for a, b in completions]


class Binary(BaseBinaryJudge):
    def __init__(self, *verdicts):
        self.verdicts = verdicts

    def judge(self, prompts, completions, gold_completions=None, shuffle_order=True):
        return list(self.verdicts)


@pytest.mark.parametrize("both_orders", [False, True])
@pytest.mark.parametrize("shuffle_order", [False, True])
def test_the_better_answer_is_found_whatever_its_place(both_orders, shuffle_order):
    judge = Good(both_orders=both_orders)
    assert judge.judge(PROMPTS, PAIRS, shuffle_order) == [0] * 40
    assert judge.judge(PROMPTS, [pair[::-1] for pair in PAIRS], shuffle_order) == [1] * 40
    assert judge.judge(PROMPTS, PAIRS, shuffle_order, return_scores=True) == [1.0] * 40


@pytest.mark.parametrize("both_orders", [False, True])
def test_an_unreadable_answer_stays_minus_one_in_every_place(both_orders):
    judge = Good(both_orders=both_orders)
    judge.unread = set(PROMPTS[::3])
    ranks = judge.judge(PROMPTS, PAIRS)
    assert ranks == [-1 if i % 3 == 0 else 0 for i in range(40)]
    scores = judge.judge(PROMPTS, PAIRS, return_scores=True)
    assert [math.isnan(score) for score in scores] == [i % 3 == 0 for i in range(40)]
    found = compare(judge, PROMPTS, *zip(*PAIRS, strict=True)).rate
    assert (found.wins, found.invalid, found.n, found.rate) == (26, 14, 26, 1.0)


class Half(OrderedJudge):
    """Can be read only where it sees the good answer first."""

    def ask(self, asked):
        return [1.0 if first.startswith("good") else None for _, first, _ in asked]


def test_half_an_answer_is_none():
    assert Half(both_orders=True).judge(PROMPTS, PAIRS) == [-1] * 40


def test_a_preference_for_a_place_is_a_tie_when_both_orders_are_asked():
    judge = First(both_orders=True)
    assert judge.judge(PROMPTS, PAIRS, return_scores=True) == [0.5] * 40
    assert (judge.agreed, judge.compared) == (0, 40)
    found = compare(judge, PROMPTS, *zip(*PAIRS, strict=True)).rate
    assert (found.rate, found.ties) == (0.5, 40)
    assert First().judge(PROMPTS, PAIRS, shuffle_order=False) == [0] * 40
    good = Good(both_orders=True)
    good.judge(PROMPTS, PAIRS)
    assert (good.agreed, good.compared) == (40, 40)


@pytest.mark.parametrize("chance", [0.1, 0.65, 0.83, 0.9999])
def test_a_doubtful_preference_for_a_place_is_a_tie_to_the_last_bit(chance):
    class Doubtful(First):
        def ask(self, asked):
            return [chance + i * 1e-3 for i in range(len(asked) // 2) for _ in range(2)]

    assert set(Doubtful(both_orders=True).judge(PROMPTS, PAIRS, return_scores=True)) == {0.5}


def test_places_are_a_fair_coin_that_depends_on_the_texts_alone():
    judge = First()
    ranks = judge.judge(PROMPTS, PAIRS)
    assert 8 < sum(ranks) < 32
    assert judge.judge(PROMPTS, PAIRS) == ranks
    assert judge.judge(PROMPTS[20:], PAIRS[20:]) == ranks[20:]
    assert judge.judge(PROMPTS, [pair[::-1] for pair in PAIRS]) == [1 - rank for rank in ranks]
    assert First(seed=1).judge(PROMPTS, PAIRS) != ranks
    tied = First(both_orders=True).judge(PROMPTS, PAIRS)
    assert 8 < sum(tied) < 32


def test_the_random_state_of_a_run_is_left_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    First().judge(PROMPTS, PAIRS)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_two_completions_are_needed():
    with pytest.raises(ValueError, match="prompt 0 has 3 completions, expected exactly 2"):
        First().judge(["a"], [["b", "c", "d"]])
    with pytest.raises(ValueError, match="prompt 0 has a text"):
        First().judge(["a"], ["bc"])
    with pytest.raises(ValueError, match="1 prompts and 2 pairs"):
        First().judge(["a"], [["b", "c"]] * 2)


def test_all_true():
    judge = AllTrueJudge([Binary(1, 1, 0, -1), Binary(1, 0, -1, 1)])
    assert judge.judge(PROMPTS[:4], ["x"] * 4) == [1, 0, -1, -1]
    with pytest.raises(ValueError, match="said 2, expected 1, 0, or -1"):
        AllTrueJudge([Binary(2)]).judge(["a"], ["b"])
    with pytest.raises(ValueError, match="at least one judge"):
        AllTrueJudge([])


def test_judges_of_other_people_can_be_compared_with():
    found = compare(Longer(), ["a", "b", "c"], ["long one", "x", "same"], ["no", "long one", "same"])
    assert found.votes == [1.0, 0.0, 0.5]
    assert found.probability is None
    with pytest.raises(TypeError, match="Longer gives no scores"):
        compare(Longer(), ["a"], ["b"], ["c"], soft=True)


def test_progress_is_told_and_equal_answers_are_not_asked_about():
    seen = []
    compare(Longer(), PROMPTS, [a for a, _ in PAIRS], [PAIRS[0][0], *(b for _, b in PAIRS[1:])], chunk=16,
            progress=lambda *at: seen.append(at))  # fmt: skip
    assert seen == [(16, 39), (32, 39), (39, 39)]


# ---- local models


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def test_a_reward_model_prefers_the_higher_score(tokenizer):
    judge = RewardModelJudge(tiny_classifier("llama", tokenizer), tokenizer, temperature=2.0)
    rewards = [
        [float(x) for x in judge.reward(_request(p, pair))] for p, pair in zip(PROMPTS, MIXED, strict=True)
    ]
    ranks, scores = judge.judge(PROMPTS, MIXED), judge.judge(PROMPTS, MIXED, return_scores=True)
    assert ranks == [int(b > a) for a, b in rewards]
    assert scores == pytest.approx([1 / (1 + math.exp((b - a) / 2)) for a, b in rewards], abs=1e-5)
    assert 0 < sum(ranks) < 40
    order = RewardModelRankJudge(judge.reward.model, tokenizer).judge(["q"], [["a b c", "d", "e f"]])[0]
    three = [float(x) for x in judge.reward(_request("q", ["a b c", "d", "e f"]))]
    assert order == sorted(range(3), key=lambda i: -three[i])


def test_a_reward_that_is_no_number_is_no_verdict(tokenizer):
    model = tiny_classifier("llama", tokenizer)
    model.score.weight.data.fill_(math.nan)
    judge = RewardModelJudge(model, tokenizer)
    assert judge.judge(PROMPTS[:2], PAIRS[:2]) == [-1, -1]
    assert compare(judge, PROMPTS[:2], *zip(*PAIRS[:2], strict=True)).rate.invalid == 2
    with pytest.raises(RewardError, match="no number"):
        RewardModelRankJudge(model, tokenizer).judge(["q"], [["a", "b"]])


def _request(prompt, answers):
    from trellis.rewards import RewardRequest

    return RewardRequest([prompt] * len(answers), answers, [[]] * len(answers))


@pytest.mark.parametrize("chat", [True, False])
def test_a_language_model_is_read_at_its_answer(chat):
    tokenizer = tiny_tokenizer(chat=chat)
    model = tiny_model("llama", tokenizer)
    judge = CausalLMJudge(
        model, tokenizer, system_prompt="Q {prompt} A {response0} B {response1} ?", both_orders=False
    )
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    found = judge.judge(PROMPTS[:3], PAIRS[:3], shuffle_order=False, return_scores=True)
    for prompt, (a, b), score in zip(PROMPTS, PAIRS, found, strict=False):
        text = f"Q {prompt} A {a} B {b} ?"
        if chat:
            turns = [{"role": "user", "content": text}]
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            ids = tokenizer(f"{text}\n\nAnswer: ")["input_ids"]
        zero, one = (tokenizer(n, add_special_tokens=False)["input_ids"][-1] for n in "01")
        logits = model(torch.tensor([ids])).logits[0, -1].detach()
        assert score == pytest.approx(float(torch.sigmoid(logits[zero] - logits[one])), abs=1e-5)
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_swapped_sides_of_a_language_model_turn_the_rate_round(tokenizer):
    judge = CausalLMJudge(tiny_model("llama", tokenizer), tokenizer)
    one = compare(judge, PROMPTS[:4], *zip(*PAIRS[:4], strict=True), soft=True)
    other = compare(judge, PROMPTS[:4], *reversed(list(zip(*PAIRS[:4], strict=True))), soft=True)
    assert one.rate.rate == pytest.approx(1 - other.rate.rate, abs=1e-6)
    assert one.rate.rate != 0.5


def test_a_pair_that_is_too_long_is_invalid_and_said(tokenizer, caplog):
    model = tiny_model("gpt2", tokenizer, n_positions=900)
    pairs = [PAIRS[0], ["word " * 400, "x"]]
    assert CausalLMJudge(model, tokenizer).judge(PROMPTS[:2], pairs)[1] == -1
    assert "it reads 900 tokens" in caplog.text


# ---- servers


@pytest.fixture
def key():
    os.environ["OPENAI_API_KEY"] = "sk-test-key"
    yield "sk-test-key"
    del os.environ["OPENAI_API_KEY"]


def test_a_served_judge_is_asked_for_one_token(key):
    with answering((200, said("0"))) as (url, seen):
        judge = OpenAIPairwiseJudge("gpt-4o-mini", base_url=f"{url}/v1", both_orders=True)
        assert judge.judge(["a {b}"], [["x", "y"]], return_scores=True) == [0.5]
    assert len(seen) == judge.num_requests == 2
    path, body, authorization = seen[0]
    assert (path, authorization) == ("/v1/chat/completions", f"Bearer {key}")
    assert b'"max_tokens": 1' in body
    assert b"a {b}" in body


def test_another_answer_is_invalid_and_never_two(key):
    with answering((200, said("I think 0"))) as (url, _):
        ranks = OpenAIPairwiseJudge("m", base_url=url).judge(PROMPTS[:20], PAIRS[:20])
    assert ranks == [-1] * 20


def test_the_cap_on_requests_stops_between_pairs_and_says_so(key, caplog):
    with answering((200, said("1"))) as (url, seen):
        judge = OpenAIPairwiseJudge("m", max_requests=5, base_url=url, both_orders=True)
        scores = judge.judge(PROMPTS[:4], PAIRS[:4], return_scores=True)
        assert judge.judge(PROMPTS[:1], PAIRS[:1]) == [-1]
    assert len(seen) == 4
    assert scores[:2] == [0.5, 0.5]
    assert all(map(math.isnan, scores[2:]))
    assert caplog.text.count("raise max_requests") == 1


def test_probabilities_of_a_server_are_soft_scores(key):
    tops = [{"token": "0", "logprob": math.log(0.6)}, {"token": " 1", "logprob": math.log(0.2)}]
    answer = said("0")
    answer["choices"][0]["logprobs"] = {"content": [{"token": "0", "top_logprobs": tops}]}
    with answering((200, answer)) as (url, seen):
        judge = OpenAIPairwiseJudge("m", base_url=url, logprobs=True)
        assert judge.judge(["a"], [["x", "y"]], False, return_scores=True) == [pytest.approx(0.75)]
    assert b'"top_logprobs": 5' in seen[0][1]


def test_a_token_given_to_the_hub_judge_is_sent_and_not_shown():
    with answering((200, said("1"))) as (url, seen):
        judge = HfPairwiseJudge("org/model", token="hf_secret", base_url=url)
        assert judge.judge(["a"], [["x", "y"]], shuffle_order=False) == [1]
    assert seen[0][2] == "Bearer hf_secret"
    assert "hf_secret" not in repr(judge.endpoint) + repr(judge.endpoint.http)


def test_what_a_server_needs_is_said_before_anything_is_sent(key):
    with pytest.raises(ValueError, match="must begin with https://"):
        OpenAIPairwiseJudge("m", base_url="http://example.org/v1")
    with pytest.raises(ValueError, match="set the environment variable NO_SUCH_KEY"):
        OpenAIPairwiseJudge("m", api_key_env="NO_SUCH_KEY")
    with pytest.raises(ValueError, match=r"lacks \{response1\}"):
        OpenAIPairwiseJudge("m", "{prompt} {response0}", base_url="https://example.org/v1")


# ---- names


def test_names_mean_judges(tmp_path, key, tokenizer):
    for folder, model in (
        ("lm", tiny_model("llama", tokenizer)),
        ("rm", tiny_classifier("llama", tokenizer)),
    ):
        model.save_pretrained(tmp_path / folder)
        tokenizer.save_pretrained(tmp_path / folder)
    assert isinstance(judge_named(str(tmp_path / "rm")), RewardModelJudge)
    assert isinstance(judge_named(str(tmp_path / "lm")), CausalLMJudge)
    served = judge_named("openai:m", base_url="http://localhost:1/v1", max_requests=7)
    assert (served.model, served.max_requests, served.both_orders) == ("m", 7, True)
    with pytest.raises(ValueError, match="names no model"):
        judge_named("openai:")
    with pytest.raises(ValueError, match="base_url belongs to"):
        judge_named("pairrm", base_url="http://localhost:1")
    with pytest.raises(ValueError, match="cannot load the model|no model directory"):
        judge_named(str(tmp_path / "none"))


def test_pair_rm_says_what_it_needs():
    with pytest.raises(ImportError, match=r"trellis-rl\[pairrm\]"):
        PairRMJudge()


def test_pair_rm_scores_become_probabilities(tmp_path):
    (tmp_path / "llm_blender.py").write_text(
        "import numpy\n"
        "class Blender:\n"
        "    def loadranker(self, name, device): self.name = name\n"
        "    def rank(self, prompts, pairs, return_scores, disable_tqdm):\n"
        "        return numpy.array([[3.0 * a.startswith('good'), 3.0 * b.startswith('good')] for a, b in pairs])\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        judge = PairRMJudge()
        assert judge.judge(PROMPTS, PAIRS) == [0] * 40
        scores = judge.judge(PROMPTS, PAIRS, return_scores=True, temperature=2.0)
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["llm_blender"]
    assert scores == pytest.approx([1 / (1 + math.exp(-1.5))] * 40)


def test_the_names_are_public_twice():
    from trellis.experimental import judges

    for name in judges.__all__:
        assert getattr(judges, name) is getattr(trellis, name)


def test_an_answer_that_is_missing_is_refused():
    with pytest.raises(ValueError, match=r"others\[1\] is None, expected a text or messages"):
        compare(Longer(), PROMPTS[:2], ["a", "b"], ["c", None])


def test_a_rank_that_is_none_is_refused():
    class Unflipped(Longer):
        def judge(self, prompts, completions, shuffle_order=True):
            return [2] * len(prompts)

    with pytest.raises(ValueError, match="the judge said 2, expected 0, 1, or -1"):
        compare(Unflipped(), ["a"], ["b"], ["c"])
