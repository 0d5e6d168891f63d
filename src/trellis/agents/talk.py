"""One completion in the making: turns of the policy, and what tools and environments said between them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..rollout import Completion
from .calls import Message
from .tools import Tool


def turn_seed(seed: int, turn: int) -> int:
    """The seed of a row's turn, a function of the row's and the turn's number; the first turn's is the row's own."""
    if turn == 0:
        return seed
    digest = hashlib.blake2b(f"{seed}/{turn}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


@dataclass
class Talk:
    """index: its place among the rows; prompt: ids; room: how many ids the completion may have; live: it goes on."""

    index: int
    seed: int
    prompt: list[int]
    room: int
    tools: dict[str, Tool] = field(default_factory=dict)
    environment: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    ids: list[int] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    sampler_logps: list[float] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    finish: Literal["stop", "length"] = "length"
    turns: int = 0
    live: bool = True

    @property
    def context(self) -> list[int]:
        """All ids so far."""
        return self.prompt + self.ids

    @property
    def left(self) -> int:
        """How many more ids fit."""
        return self.room - len(self.ids)

    @property
    def schemas(self) -> list[dict[str, Any]] | None:
        """The tools as the chat template gets them."""
        return [tool.schema for tool in self.tools.values()] or None

    def sampled(self, turn: Completion) -> list[int]:
        """Take what the policy sampled, as far as it fits; the ids that were taken. Raises ValueError for an empty turn."""
        ids = list(turn.ids[: self.left])
        if not ids:
            raise ValueError(f"the engine returned no token for row {self.index} in turn {self.turns}")
        self.finish = turn.finish_reason if len(ids) == len(turn.ids) else "length"
        self.ids += ids
        self.mask += [True] * len(ids)
        self.logps += turn.logps[: len(ids)]
        self.sampler_logps += turn.sampler_logps[: len(ids)]
        self.turns += 1
        return ids

    def heard(self, ids: Sequence[int], messages: Sequence[Message]) -> None:
        """Take what was said to the policy; where no token of an answer would fit behind it, the completion ends cut off."""
        if len(ids) >= self.left:
            self.finish, self.live = "length", False
            return
        self.ids += ids
        self.mask += [False] * len(ids)
        self.messages += messages

    def completion(self) -> Completion:
        """The completion as it is."""
        mask = None if all(self.mask) else self.mask
        return Completion(self.ids, self.logps, self.sampler_logps, self.finish, mask, self.messages)
