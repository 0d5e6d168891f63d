"""What every reward is asked about, and the one error that rewards raise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


class RewardError(ValueError):
    """A reward raised, or returned what is no reward; the message names it and shows a completion."""


@dataclass(frozen=True)
class RewardRequest:
    """B completions to be judged. prompts and completions are texts or lists of messages; columns are the data's other ones;
    finished [B] says which completions ended with a stop token (None: all)."""

    prompts: Sequence[Any]
    completions: Sequence[Any]
    completion_ids: Sequence[Sequence[int]]
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    state: Any = None
    finished: Sequence[bool] | None = None

    def __post_init__(self) -> None:
        own = {"prompts": self.prompts, "completion_ids": self.completion_ids, **self.columns}
        if self.finished is not None:
            own["finished"] = self.finished
        for name, values in own.items():
            if len(values) != len(self.completions):
                raise ValueError(
                    f"{len(self.completions)} completions need {len(self.completions)} {name}, found {len(values)}"
                )

    def __len__(self) -> int:
        return len(self.completions)

    def arguments(self) -> dict[str, Any]:
        """What a reward function may declare, as lists of its own: changing them changes nobody else's."""
        columns = {name: list(values) for name, values in self.columns.items()}
        return {
            **columns,
            "prompts": list(self.prompts),
            "completions": list(self.completions),
            "completion_ids": [list(ids) for ids in self.completion_ids],
            "trainer_state": self.state,
        }

    def excerpt(self, row: int) -> str:
        """The beginning of a completion, for messages."""
        text = as_text(self.completions[row])
        return repr(text if len(text) <= 60 else text[:59] + "…")


def as_text(completion: Any) -> str:
    """A completion's text; of messages, their contents."""
    if isinstance(completion, str):
        return completion
    return "\n".join(str(message.get("content", "")) for message in completion)
