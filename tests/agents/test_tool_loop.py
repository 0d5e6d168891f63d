"""Conversations with tools: what was sampled is what is trained, to the token, and a row's conversation is its own."""

import asyncio
import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.agents.talking import Policy, add, asks, by_turn, chat, divide, tool_tokenizer
from trellis.agents import ToolLoop
from trellis.rollout import OneTurn

TOKENIZER = tool_tokenizer()


def loop(**options):
    return ToolLoop(TOKENIZER, **{"max_new_tokens": 2000, "tools": [add, divide], **options})


def run(say, rows=None, seeds=None, **options):
    rows = [chat("what is 2 + 3 ?")] if rows is None else rows
    return loop(**options)(rows, Policy(TOKENIZER, say), list(range(len(rows))) if seeds is None else seeds)


def answers(completion):
    return [m["content"] for m in completion.messages if m["role"] == "tool"]


def test_a_call_is_answered_and_the_policy_speaks_again():
    found = run(by_turn(asks("add", a=2, b=3), "it is 5 ."))
    [done] = found.completions
    assert [m["role"] for m in done.messages] == ["assistant", "tool", "assistant"]
    assert answers(done) == ["5"]
    assert done.messages[-1]["content"] == "it is 5 ."
    assert done.messages[0]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 2, "b": 3}}
    assert done.finish_reason == "stop"
    assert found.metrics["tools/call_frequency"] == (1.0, 1.0)
    assert found.metrics["tools/failure_frequency"] == (0.0, 1.0)
    assert found.metrics["completions/turns"] == (2.0, 1.0)


def test_the_tools_stand_in_the_prompt():
    found = run(by_turn("no ."))
    assert '"name": "add"' in TOKENIZER.decode(found.prompts[0])
    assert found.completions[0].mask is None
    assert found.metrics["tools/call_frequency"] == (0.0, 1.0)


words = st.text(alphabet='ab 7.\n"{}é<>', max_size=12).map(str.strip)
calls = st.builds(
    asks, st.sampled_from(["add", "divide", "none"]), a=st.integers(-50, 50), b=st.integers(0, 9)
)
asking = st.tuples(words, st.lists(calls, min_size=1, max_size=2))
LOOP = loop()


@settings(max_examples=40, deadline=None)
@given(st.lists(asking, max_size=3), words)
def test_what_was_sampled_is_what_is_trained(script, last):
    """The ids are the template's own rendering of the messages, and the mask is on exactly what the policy said."""
    spoken = ["\n".join(filter(None, [said, *several])) for said, several in script]
    policy = Policy(TOKENIZER, by_turn(*spoken, last))
    [done] = (found := LOOP([chat("go")], policy, [3])).completions
    sampled = [
        [*TOKENIZER(text, add_special_tokens=False)["input_ids"], policy.stop] for text in [*spoken, last]
    ]
    assert [t for t, m in zip(done.ids, done.sampled, strict=True) if m] == sum(sampled, [])
    assert done.logps == [-0.01 * (i + 1) for turn in sampled for i in range(len(turn))]
    whole = TOKENIZER.apply_chat_template(
        chat("go")["prompt"] + done.messages, tools=[t.schema for t in LOOP.tools], tokenize=False
    )
    assert TOKENIZER.decode(found.prompts[0] + done.ids) == whole.removesuffix("\n")
    starts = [i for i, now in enumerate(done.sampled) if now and (not i or not done.sampled[i - 1])]
    assert [p for prompts, _, _ in policy.seen for p in prompts] == [
        found.prompts[0] + done.ids[:start] for start in starts
    ]


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (asks("subtract", a=1, b=2), "there is no tool 'subtract'; the tools are ['add', 'divide']"),
        ("<tool_call>\n{not json\n</tool_call>", "could not be read"),
        ("<tool_call>\n[1, 2]\n</tool_call>", "could not be read"),
        ("<tool_call>\nnever closed", "could not be read"),
        (asks("add", a=1), "missing a required argument: 'b'"),
        (asks("add", a=1, b=2, c=3), "unexpected keyword argument 'c'"),
        (asks("add", a="1", b=2), "argument 'a' must be of type integer, found \"1\""),
        (asks("add", a=True, b=2), "argument 'a' must be of type integer, found true"),
        (asks("divide", a=1, b=0), "ZeroDivisionError"),
    ],
)
def test_what_goes_wrong_is_told_to_the_model(turn, said):
    found = run(by_turn(turn, "sorry ."))
    [answer] = answers(found.completions[0])
    assert answer.startswith("Error: ")
    assert said in answer
    assert found.metrics["tools/failure_frequency"] == (1.0, 1.0)


def test_arguments_that_are_json_in_a_string_are_read():
    text = '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": 2}"}</tool_call>'
    assert answers(run(by_turn(text, "")).completions[0]) == ["3"]


def test_several_calls_of_a_message_are_answered_in_their_order():
    [done] = run(by_turn(asks("add", a=1, b=1) + asks("nothing") + asks("add", a=4, b=5), ".")).completions
    assert [a[:6] for a in answers(done)] == ["2", "Error:", "9"]
    assert [m["tool_call_id"] for m in done.messages if m["role"] == "tool"] == [
        call["id"] for call in done.messages[0]["tool_calls"]
    ]


def test_async_tools_of_all_rows_run_together():
    together = asyncio.Barrier(3)

    async def meet(who: str) -> str:
        """Wait for two others.

        Args:
            who: a name
        """
        await together.wait()
        return who

    def say(before, seed):
        return "met ." if "<|im_start|>tool" in before else asks("meet", who=f"row {seed}")

    found = run(say, rows=[chat("x")] * 3, tools=[meet], timeout=20.0)
    assert [answers(c) for c in found.completions] == [["row 0"], ["row 1"], ["row 2"]]


def test_a_tool_that_takes_too_long_is_an_error_that_the_model_reads():
    never = threading.Event()

    def hang(a: int) -> None:
        """Wait.

        Args:
            a: anything
        """
        never.wait()

    async def hang_too(a: int) -> None:
        """Wait.

        Args:
            a: anything
        """
        await asyncio.Event().wait()

    both = asks("hang", a=1) + asks("hang_too", a=1) + asks("add", a=1, b=2)
    found = run(by_turn(both, "."), tools=[hang, hang_too, add], timeout=0.2)
    never.set()
    first, second, third = answers(found.completions[0])
    assert first == "Error: hang did not answer within 0.2 seconds"
    assert second == "Error: hang_too did not answer within 0.2 seconds"
    assert third == "3"


def test_an_exit_in_a_tool_ends_the_program_and_not_only_its_thread():
    def leave(a: int) -> None:
        """Leave.

        Args:
            a: anything
        """
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        run(by_turn(asks("leave", a=1)), tools=[leave], timeout=5.0)


@pytest.mark.parametrize("cap", [0, 1, 3])
def test_the_number_of_answers_has_a_cap(cap):
    [done] = run(by_turn(asks("add", a=1, b=1)), max_iterations=cap).completions
    assert len(answers(done)) == cap
    assert done.messages[-1]["tool_calls"]
    assert done.finish_reason == "stop"


@pytest.mark.parametrize("most", range(20, 260, 23))
def test_a_completion_never_exceeds_its_length(most):
    say = by_turn(asks("add", a=1, b=1), asks("add", a=100, b=1), "done .")
    [free] = run(say).completions
    [cut] = run(say, max_new_tokens=most).completions
    assert len(cut) <= most
    assert cut.ids == free.ids[: len(cut)]
    assert cut.sampled == free.sampled[: len(cut)]
    assert cut.finish_reason == ("stop" if len(cut) == len(free) else "length")
    assert cut.sampled[-1]
    assert sum(cut.sampled) == len(cut.logps)


@pytest.mark.parametrize(("more", "turns"), [(0, 1), (1, 2)])
def test_an_answer_stays_only_if_a_token_fits_behind_it(more, turns):
    say = by_turn(asks("add", a=1, b=1), "done .")
    [free] = run(say).completions
    heard = free.sampled.index(True, free.sampled.index(False))
    found = run(say, max_new_tokens=heard + more)
    assert found.metrics["completions/turns"] == (turns, 1.0)
    assert found.metrics["tools/call_frequency"] == (1.0, 1.0)
    assert len(found.completions[0]) == (heard + 1 if more else free.sampled.index(False))
    assert found.completions[0].finish_reason == "length"


def test_a_turn_that_was_cut_calls_nothing():
    found = run(by_turn(asks("add", a=1, b=1)), max_new_tokens=20)
    assert found.metrics["tools/call_frequency"] == (0.0, 1.0)
    assert found.completions[0].messages[0].keys() == {"role", "content"}


def unsteady(before, seed):
    """Words that depend on the seed: some call, some do not."""
    return asks("add", a=seed % 100, b=1) if seed % 3 else f"after {seed} ."


SHORT = loop(max_new_tokens=300)
row = st.tuples(st.sampled_from(["x", "y ?", "what is it"]), st.integers(0, 2**62))


@settings(max_examples=15, deadline=None)
@given(st.lists(row, min_size=1, max_size=5))
def test_a_rows_conversation_is_its_own(pairs):
    def lead(pairs):
        rows, seeds = [chat(text) for text, _ in pairs], [seed for _, seed in pairs]
        return SHORT(rows, Policy(TOKENIZER, unsteady), seeds).completions

    alone = [lead([pair])[0] for pair in pairs]
    assert lead(pairs) == alone
    assert lead(pairs[::-1]) == alone[::-1]


def test_turns_differ_in_their_seeds_and_the_first_has_the_rows_own():
    policy = Policy(TOKENIZER, by_turn(asks("add", a=1, b=1), asks("add", a=1, b=1), "."))
    loop()([chat("x")], policy, [7])
    seeds = [seed for _, several, _ in policy.seen for seed in several]
    assert seeds[0] == 7
    assert len(set(seeds)) == 3


def test_where_nothing_is_called_it_is_one_turn():
    policy = Policy(TOKENIZER, lambda before, seed: f"{seed} .")
    rows = [chat("x"), chat("x")]
    found = loop()(rows, policy, [4, 5])
    for row, prompt in zip(rows, found.prompts, strict=True):
        row["prompt_ids"] = prompt
    plain = OneTurn()(rows, policy, [4, 5])
    assert [c.ids for c in found.completions] == [c.ids for c in plain.completions]
    assert policy.seen[0] == (found.prompts, [4, 5], 2000)


def test_rows_that_have_no_room_beside_each_other_are_sampled_apart():
    say = {1: by_turn(asks("add", a=1, b=1), "."), 2: by_turn(asks("add", "well , " * 9, a=1, b=1), ".")}
    rows = [chat("x"), chat("x")]

    def both(before, seed):
        return say[2 if "well" in before or seed == 2 else 1](before, seed)

    tight = len(loop()([rows[0]], Policy(TOKENIZER, both), [1]).prompts[0]) + 300
    policy = Policy(TOKENIZER, both)
    found = loop(max_new_tokens=300, room=tight)(rows, policy, [1, 2])
    assert [len(prompts) for prompts, _, _ in policy.seen] == [2, 1, 1]
    assert all(len(p) + limit <= tight for prompts, _, limit in policy.seen for p in prompts)
    assert found.completions == loop(max_new_tokens=300)(rows, Policy(TOKENIZER, both), [1, 2]).completions


def test_own_ways_of_calling_are_read_by_parse():
    def parse(text):
        if "CALL" not in text:
            return {"content": text}
        return {"content": "", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1, "b": 6}}}]}

    [done] = run(by_turn("CALL", "fine"), parse=parse).completions
    assert answers(done) == ["7"]
    with pytest.raises(TypeError, match="parse must return a message"):
        run(by_turn("x"), parse=str.upper)


def test_text_prompts_are_refused_before_anything_is_sampled():
    policy = Policy(TOKENIZER, by_turn("."))
    with pytest.raises(ValueError, match="need conversations as prompts, found the text 'two and two'"):
        loop()([{"prompt": "two and two", "prompt_ids": [5]}], policy, [0])
    assert policy.seen == []


def undocumented(a: int) -> int:
    return a


@pytest.mark.parametrize(
    ("tools", "error", "said"),
    [
        ([undocumented], ValueError, "'undocumented' cannot be described"),
        ([add, add], ValueError, "two tools are called 'add'"),
        (add, TypeError, "tools must be a list of functions"),
        (["add"], ValueError, "a tool must be a function, found 'add'"),
    ],
)
def test_tools_that_are_none_are_refused(tools, error, said):
    with pytest.raises(error, match=said):
        loop(tools=tools)


@pytest.mark.parametrize("option", [{"timeout": 0}, {"timeout": float("inf")}, {"max_iterations": -1}])
def test_limits_that_mean_nothing_are_refused(option):
    with pytest.raises(ValueError, match="must be"):
        loop(**option)


def test_results_are_text_or_json():
    def give(what: str) -> object:
        """Give.

        Args:
            what: which
        """
        return {"text": "as it is", "list": [1, "é"], "none": None}[what]

    turn = "".join(asks("give", what=w) for w in ("text", "list", "none"))
    [done] = run(by_turn(turn, "."), tools=[give]).completions
    assert answers(done) == ["as it is", json.dumps([1, "é"], ensure_ascii=False), "null"]


def with_response_template():
    tokenizer = tool_tokenizer()
    tokenizer.response_template = {
        "defaults": {"role": "assistant"},
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {
            "tool_calls": {
                "open_pattern": r"\s*<call>",
                "close": "</call>",
                "repeats": True,
                "content": "json",
                "transform": {"type": "function", "function": "{content}"},
            },
            "content": {"close_pattern": r"\s*<\|im_end\|>", "content": "text"},
        },
    }
    return tokenizer


@pytest.mark.parametrize(
    ("turn", "heard"),
    [
        ('<call>{"name": "add", "arguments": {"a": 3, "b": 4}}</call>', "7"),
        ('hm\n<call>{"name": "add", "arguments": {"a": 3}}</call>', "missing a required argument"),
        ("<call>nonsense</call>", "could not be read"),
        ("<call>[3]</call>", "could not be read"),
        ('<call>{"arguments": {}}</call>', "there is no tool ''"),
        ('<call>{"name": "add", "arguments": [1]}</call>', "could not be read"),
    ],
)
def test_a_tokenizers_own_response_template_is_used(turn, heard):
    tokenizer = with_response_template()
    driver = ToolLoop(tokenizer, max_new_tokens=2000, tools=[add])
    [done] = driver([chat("x")], Policy(tokenizer, by_turn(turn, "well .")), [0]).completions
    [answer] = answers(done)
    assert heard in answer
    assert done.messages[-1]["content"] == "well ."
    assert done.messages[0]["content"] == ("hm" if turn.startswith("hm") else "")
