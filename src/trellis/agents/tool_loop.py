"""Conversations of the policy with tools and environments, to the token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..data.chat import render_prompt
from ..data.messages import as_messages, is_conversation, template_options
from ..metrics import Metric
from ..rollout import Completion, Episodes
from ..rollout.episodes import Row, Turn
from .calls import Message, Parser, Reader, calls_of
from .environments import Environments, Factory, asked, opened, stepped
from .running import Runner
from .seams import ASKED, Seams
from .talk import Talk, turn_seed
from .tools import Answer, Request, Tool, as_tools, schemas

CALLS = Metric("tools/call_frequency", "calls of tools per completion", hold=True)
FAILURES = Metric("tools/failure_frequency", "failed calls / calls", hold=True)
TURNS = Metric("completions/turns", "turns of the policy per completion", hold=True)
ROUNDS = 10
"""How often a completion is answered at most, unless something else is asked for."""


class ToolLoop:
    """A driver: the policy speaks, what it calls is called and answered, until it calls nothing more.

    `max_new_tokens` bounds a whole completion, answers included; `max_iterations` how often it is answered (None: 10 times);
    `timeout`: seconds for one call; `room`: tokens that prompt and completion may have together (None: no limit).
    Raises ValueError before anything is sampled when the chat template knows no tools or cannot continue after their answers.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_new_tokens: int,
        tools: Sequence[Callable[..., Any]] | None = None,
        environment_factory: Factory | Mapping[str, Factory] | None = None,
        max_iterations: int | None = None,
        timeout: float | None = None,
        parse: Parser | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        room: int | None = None,
    ) -> None:
        if max_iterations is not None and max_iterations < 0:
            raise ValueError(f"max_iterations must be at least 0, or None, found {max_iterations}")
        self.tokenizer, self.options = tokenizer, dict(chat_template_kwargs or {})
        self.max_iterations = ROUNDS if max_iterations is None else max_iterations
        self.max_new_tokens, self.room = max_new_tokens, room
        self.tools = as_tools(tools or ())
        self.environments = None if environment_factory is None else Environments(environment_factory)
        self.seams, self.reader = Seams(tokenizer, self.options), Reader(tokenizer, parse)
        self.runner = Runner(timeout)
        kinds = {} if self.environments is None else self.environments.kinds
        self.toolsets = {kind.name: [*self.tools, *kind.tools] for kind in kinds.values()} or {"": self.tools}
        self.metrics = [TURNS, *([CALLS, FAILURES] if any(self.toolsets.values()) else [])]
        self._check_template()

    @property
    def columns(self) -> tuple[str, ...]:
        """What it adds to the columns that reward functions may ask for."""
        return () if self.environments is None else ("environments",)

    @property
    def rewards(self) -> list[Callable[..., Any]]:
        """The environments' own rewards, as reward functions."""
        return [] if self.environments is None else self.environments.rewards

    def check(self, row: Row) -> None:
        """Raises ValueError when the row cannot be led: a prompt that is no conversation, an environment that is not there."""
        if not is_conversation(row["prompt"]):
            raise ValueError(
                f"tools and environments need conversations as prompts, found the text {str(row['prompt'])[:60]!r}; write "
                "{'prompt': [{'role': 'user', 'content': …}]}"
            )
        if self.environments is not None:
            self.environments.of(row)

    def __call__(self, rows: Sequence[Row], turn: Turn, seeds: Sequence[int]) -> Episodes:
        """One conversation per row. A row's depends on itself and its seed alone."""
        talks, number = self._begin(rows, seeds), 0
        answers: list[Answer] = []
        live = talks
        while live:
            spoken = self._speak(live, turn)
            last = number == self.max_iterations
            answers += self._answer(spoken, last)
            self._step([(talk, said) for talk, said in spoken if talk.live], last)
            live, number = [talk for talk, _ in spoken if talk.live], number + 1
        return self._episodes(talks, answers)

    def _begin(self, rows: Sequence[Row], seeds: Sequence[int]) -> list[Talk]:
        for row in rows:
            self.check(row)
        environments, observations = [None] * len(rows), [None] * len(rows)
        if self.environments is not None:
            pairs = [self.environments.open(row, i) for i, row in enumerate(rows)]
            environments = [environment for environment, _ in pairs]
            observations = self.runner.together([observation for _, observation in pairs])
        talks = []
        for i, (row, seed) in enumerate(zip(rows, seeds, strict=True)):
            messages = opened(
                as_messages(row["prompt"], "user"), observations[i], type(environments[i]).__name__
            )
            options, tools = {**self.options, **template_options(row)}, self._tools_of(row)
            prompt = render_prompt(self.tokenizer, messages, tools=schemas(tools), **options)
            named = {tool.name: tool for tool in tools}
            talks.append(Talk(i, seed, prompt, self.max_new_tokens, named, environments[i], options))
        return talks

    def _speak(self, talks: list[Talk], turn: Turn) -> list[tuple[Talk, Message]]:
        """Sample a turn of each; those that ended it themselves, with what they said."""
        spoken = []
        for several in self._fitting(talks):
            seeds = [turn_seed(talk.seed, talk.turns) for talk in several]
            contexts = [talk.context for talk in several]
            limit = max(talk.left for talk in several)
            for talk, before, done in zip(several, contexts, turn(contexts, seeds, limit), strict=True):
                spoken.append((talk, self._take(talk, before, done)))
        spoken.sort(key=lambda pair: pair[0].index)
        return [(talk, said) for talk, said in spoken if talk.live]

    def _take(self, talk: Talk, before: list[int], done: Completion) -> Message:
        ids = talk.sampled(done)
        talk.live = talk.finish == "stop"
        said = self.reader(before, ids, talk.live, talk.schemas)
        talk.messages.append(said)
        return said

    def _fitting(self, talks: list[Talk]) -> list[list[Talk]]:
        """The talks in as few parts as may be sampled together without leaving the room there is."""
        waiting, parts = sorted(talks, key=lambda talk: -talk.left), []
        while waiting and self.room is not None:
            limit = waiting[0].left
            part = [t for t in waiting if t is waiting[0] or len(t.prompt) + len(t.ids) + limit <= self.room]
            taken = {talk.index for talk in part}
            parts.append(sorted(part, key=lambda talk: talk.index))
            waiting = [talk for talk in waiting if talk.index not in taken]
        return parts if self.room is not None else [talks]

    def _answer(self, spoken: list[tuple[Talk, Message]], last: bool) -> list[Answer]:
        """Run the calls of all talks and tell them the answers; a talk that may not be answered any more ends."""
        asking = [(talk, said, calls) for talk, said in spoken if (calls := calls_of(said))]
        if last:
            for talk, _, _ in asking:
                talk.live = False
            return []
        requests = [
            Request(call, talk.tools, talk.environment) for talk, _, calls in asking for call in calls
        ]
        answers = self.runner.answers(requests)
        rest = iter(zip(requests, answers, strict=True))
        for talk, said, calls in asking:
            self._tell(talk, said, answers_to(said, [next(rest) for _ in calls]))
        return answers

    def _step(self, spoken: list[tuple[Talk, Message]], last: bool) -> None:
        """Show turns without a call to environments that step; other talks end with them."""
        silent = [(talk, said) for talk, said in spoken if not calls_of(said)]
        stepping = [pair for pair in silent if callable(getattr(pair[0].environment, "step", None))]
        results = self.runner.together(
            [
                asked(talk.environment, "step", talk.index, said.get("content") or "")
                for talk, said in stepping
            ]
        )
        for talk, _ in silent:
            talk.live = False
        for (talk, said), result in zip(stepping, results, strict=True):
            observation, done = stepped(result, type(talk.environment).__name__)
            if observation is not None and not done and not last:
                talk.live = True
                self._tell(talk, said, [{"role": "user", "content": observation}])

    def _tell(self, talk: Talk, said: Message, then: list[Message]) -> None:
        stop = talk.ids[-1]
        ids = self.seams.after(said, stop, then, tools=talk.schemas, options=talk.options)
        talk.heard(ids, then)

    def _episodes(self, talks: list[Talk], answers: list[Answer]) -> Episodes:
        count = float(len(answers))
        found: dict[str, tuple[Any, Any]] = {
            TURNS.name: (float(sum(talk.turns for talk in talks)), float(len(talks))),
            CALLS.name: (count, float(len(talks))),
            FAILURES.name: (float(sum(answer.failed for answer in answers)), count),
        }
        return Episodes(
            [talk.completion() for talk in talks],
            prompts=[talk.prompt for talk in talks],
            columns={name: [talk.environment for talk in talks] for name in self.columns},
            metrics={metric.name: found[metric.name] for metric in self.metrics},
        )

    def _tools_of(self, row: Row) -> list[Tool]:
        return self.tools if self.environments is None else [*self.tools, *self.environments.of(row).tools]

    def _check_template(self) -> None:
        for owner, tools in self.toolsets.items():
            if tools:
                check_names(owner, tools)
                check_written(self.tokenizer, tools, self.options)
                self.seams.check("tool", tools=schemas(tools))
        if self.environments is not None and any(kind.steps for kind in self.environments.kinds.values()):
            self.seams.check("user")


def check_names(owner: str, tools: Sequence[Tool]) -> None:
    """Raises ValueError when the tools given and an environment's own share a name."""
    names = [tool.name for tool in tools]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(
            f"a tool and a method of environment {owner!r} are both called {twice!r}; rename one"
        )


def check_written(tokenizer: Any, tools: Sequence[Tool], options: Mapping[str, Any]) -> None:
    """Raises ValueError when the chat template does not tell the model of the tools."""
    text = tokenizer.apply_chat_template([ASKED], tools=schemas(tools), tokenize=False, **options)
    missing = [tool.name for tool in tools if tool.name not in text]
    if missing:
        raise ValueError(
            f"the chat template does not write the tools it is given ({missing[0]!r} is not in the prompt), so the model could "
            "not know of them; use a template with `tools`: tokenizer.chat_template = open('template.jinja').read()"
        )


def answers_to(said: Message, answers: Sequence[tuple[Request, Answer]]) -> list[Message]:
    """The tools' messages, in the order of the calls, with the calls' ids where they have any."""
    ids = [entry.get("id") for entry in said["tool_calls"]]
    return [
        {
            "role": "tool",
            "name": request.call.name,
            "content": answer.text,
            **({} if own is None else {"tool_call_id": own}),
        }
        for own, (request, answer) in zip(ids, answers, strict=True)
    ]
