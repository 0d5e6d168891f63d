"""Environments: opened, spoken to and asked what it was worth, one object per completion."""

import asyncio

import pytest

from tests.agents.talking import TEMPLATE, Policy, add, asks, by_turn, chat, tool_tokenizer
from trellis.agents import ToolLoop
from trellis.rewards import RewardSet

TOKENIZER = tool_tokenizer()


class Shelf:
    """A counter that the model works with tools."""

    def reset(self, start: int = 0) -> str | None:
        self.count = start
        return f" there are {start} ." if start else None

    def put(self, n: int) -> str:
        """Put things on the shelf.

        Args:
            n: how many
        """
        self.count += n
        return f"now {self.count}"

    async def take(self, n: int) -> str:
        """Take things from the shelf.

        Args:
            n: how many
        """
        self.count -= n
        return f"now {self.count}"

    def get_reward(self) -> float:
        return float(self.count)

    def _hidden(self) -> None:
        """No tool."""


class Guess:
    """A number to find, in plain words."""

    def reset(self, number: int, **columns: object) -> str:
        self.number, self.tries, self.found = number, 0, False
        self.seen = columns
        return " guess !"

    def step(self, text: str) -> tuple[str | None, bool]:
        self.tries += 1
        guess = int(text) if text.isdigit() else -1
        self.found = guess == self.number
        return ("right" if self.found else "higher" if guess < self.number else "lower"), self.found

    async def get_reward(self) -> float:
        return 1.0 / self.tries if self.found else 0.0


def run(factory, say, rows, **options):
    driver = ToolLoop(TOKENIZER, **{"max_new_tokens": 2000, "environment_factory": factory, **options})
    policy = Policy(TOKENIZER, say)
    return driver, driver(rows, policy, list(range(len(rows)))), policy


def heard(completion):
    return [m["content"] for m in completion.messages if m["role"] != "assistant"]


def test_public_methods_are_tools_and_each_completion_has_its_own_object():
    turn = asks("put", n=3) + asks("take", n=1) + asks("take", n=1)
    driver, found, _ = run(Shelf, by_turn(turn, "."), [chat("x"), chat("x", start=5)])
    assert [tool["function"]["name"] for tool in [t.schema for t in driver.toolsets["Shelf"]]] == [
        "put",
        "take",
    ]
    assert [heard(c) for c in found.completions] == [["now 3", "now 2", "now 1"], ["now 8", "now 7", "now 6"]]
    first, second = found.columns["environments"]
    assert (first.count, second.count) == (1, 6)
    assert driver.columns == ("environments",)


def test_an_environments_async_methods_run_one_after_another():
    class Door:
        def reset(self) -> None:
            self.log: list[str] = []

        async def knock(self, who: str) -> None:
            """Knock.

            Args:
                who: a name
            """
            self.log.append(f"{who} in")
            await asyncio.get_running_loop().run_in_executor(None, int)
            self.log.append(f"{who} out")

    turn = asks("knock", who="a") + asks("knock", who="b")
    _, found, _ = run(Door, by_turn(turn, "."), [chat("x")])
    assert found.columns["environments"][0].log == ["a in", "a out", "b in", "b out"]


def test_what_reset_says_ends_the_last_user_message_and_leaves_the_data_alone():
    rows = [chat("x"), chat("x", start=5)]
    rows[1]["prompt"].insert(0, {"role": "system", "content": "be good"})
    _, found, _ = run(Shelf, by_turn("."), rows)
    assert "<|im_start|>user\nx<|im_end|>" in TOKENIZER.decode(found.prompts[0])
    assert "<|im_start|>user\nx there are 5 .<|im_end|>" in TOKENIZER.decode(found.prompts[1])
    assert rows[1]["prompt"][-1]["content"] == "x"


def test_text_games_go_on_until_they_are_over():
    driver, found, policy = run(Guess, by_turn("5", "9", "7", "8"), [chat("x", number=7, colour="red")])
    [done] = found.completions
    assert heard(done) == ["higher", "lower"]
    assert [m["role"] for m in done.messages] == ["assistant", "user", "assistant", "user", "assistant"]
    assert done.finish_reason == "stop"
    assert sum(done.sampled) == len(done.logps) == 6
    [game] = found.columns["environments"]
    assert game.found
    assert game.seen == {"colour": "red", "prompt": chat("x")["prompt"]}
    assert found.metrics == {"completions/turns": (3.0, 1.0)}
    assert [m.name for m in driver.metrics] == ["completions/turns"]


@pytest.mark.parametrize("cap", [0, 2])
def test_games_that_are_not_won_end_at_the_cap_and_see_the_last_turn_too(cap):
    _, found, _ = run(Guess, by_turn("5"), [chat("x", number=7)], max_iterations=cap)
    assert len(heard(found.completions[0])) == cap
    assert found.columns["environments"][0].tries == cap + 1


def test_a_games_words_are_no_calls():
    _, found, _ = run(Guess, by_turn(asks("add", a=1, b=1), "7"), [chat("x", number=7)])
    assert heard(found.completions[0]) == ["higher"]
    assert "tool_calls" not in found.completions[0].messages[0]


def test_tools_and_steps_go_together():
    class Both(Guess):
        def hint(self, unit: str) -> str:
            """Say the number.

            Args:
                unit: of what
            """
            return f"{self.number} {unit}"

    turns = by_turn(asks("hint", unit="apples"), "1", asks("add", a=3, b=4), "7")
    _, found, _ = run(Both, turns, [chat("x", number=7)], tools=[add])
    assert heard(found.completions[0]) == ["7 apples", "higher", "7"]
    assert found.columns["environments"][0].found


def test_rows_are_routed_and_see_only_their_own_tools():
    rows = [chat("x", environment="shelf"), chat("x", environment="guess", number=7)]

    def say(before, seed):
        return asks("put", n=1) if '"put"' in before and "tool\n" not in before else "7"

    driver, found, _ = run({"shelf": Shelf, "guess": Guess}, say, rows)
    prompts = [TOKENIZER.decode(prompt) for prompt in found.prompts]
    assert ['"put"' in prompt for prompt in prompts] == [True, False]
    shelf, guess = found.columns["environments"]
    assert (shelf.count, guess.found) == (1, True)
    assert "environment" not in guess.seen
    assert [reward.__name__ for reward in driver.rewards] == ["Shelf", "Guess"]


def test_environments_own_rewards_are_reward_functions():
    rows = [chat("x", environment="shelf", start=4), chat("x", environment="guess", number=7, start=None)]
    driver, found, _ = run({"shelf": Shelf, "guess": Guess}, by_turn("7"), rows)
    rewards = RewardSet(driver.rewards)
    verdict = rewards(
        prompts=[row["prompt"] for row in rows],
        completions=[c.messages for c in found.completions],
        completion_ids=[c.ids for c in found.completions],
        columns=found.columns,
    )
    assert rewards.names == ["Shelf", "Guess"]
    assert verdict.total.tolist() == [4.0, 1.0]
    assert verdict.per_function.isnan().tolist() == [[False, True], [True, False]]


class Slow(Guess):
    async def reset(self, number: int) -> str:
        return super().reset(number)

    async def step(self, text: str):
        return super().step(text)


def test_environments_may_be_async():
    _, found, _ = run(Slow, by_turn("9", "7"), [chat("x", number=7), chat("y", number=9)])
    assert [heard(c) for c in found.completions] == [["lower"], []]


class NoReset:
    pass


class Broken(Guess):
    def reset(self, number: int) -> str:
        raise KeyError("board")


class BrokenLater(Guess):
    async def step(self, text: str):
        raise KeyError("board")


class Odd(Guess):
    def step(self, text: str):
        return "higher"


class Deaf(Guess):
    def reset(self, number: int):
        return 5


@pytest.mark.parametrize(
    ("factory", "rows", "error", "said"),
    [
        (NoReset, [chat("x")], ValueError, "has no method reset"),
        (Shelf(), [chat("x")], TypeError, "pass the class"),
        ({}, [chat("x")], ValueError, "has no environments"),
        (
            Guess,
            [chat("x")],
            ValueError,
            "Guess.reset needs the argument 'number', found the columns \\['prompt'\\]",
        ),
        ({"a": Shelf}, [chat("x")], ValueError, "'environment' must say .* \\['a'\\].* found the columns"),
        ({"a": Shelf}, [chat("x", environment="b")], ValueError, "found 'b'"),
        (Broken, [chat("x", number=1)], RuntimeError, "Broken.reset raised KeyError: 'board' .completion 0"),
        (BrokenLater, [chat("x", number=1)], RuntimeError, "BrokenLater.step raised KeyError"),
        (Odd, [chat("x", number=1)], TypeError, "Odd.step must return"),
        (Deaf, [chat("x", number=1)], TypeError, "Deaf.reset must return a text or None, found 5"),
    ],
)
def test_what_is_no_environment_is_refused(factory, rows, error, said):
    with pytest.raises(error, match=said):
        run(factory, by_turn("1"), rows)


def test_a_tool_and_a_method_of_one_name_are_refused():
    class Adds(Shelf):
        def add(self, a: int) -> int:
            """Add.

            Args:
                a: what
            """
            return a

    with pytest.raises(ValueError, match="both called 'add'"):
        ToolLoop(TOKENIZER, max_new_tokens=9, tools=[add], environment_factory=Adds)


def test_a_template_that_allows_one_question_only_is_named_at_once():
    one = TEMPLATE.replace(
        "{%- for message",
        "{%- if messages | length > 2 %}{{ raise_exception('one question only') }}{% endif %}{%- for message",
        1,
    )
    with pytest.raises(ValueError, match="of the role 'user': .*one question only"):
        ToolLoop(tool_tokenizer(one), max_new_tokens=9, environment_factory=Guess)
