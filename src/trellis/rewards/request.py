"""What every reward is asked about, what it may note beside its answer, and the one error that rewards raise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
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


class Notes:
    """What one call of a reward function noted: columns of `rows` values for the completion tables, and numbers for the log."""

    def __init__(self, name: str, rows: int | None = None) -> None:
        self.name, self.rows = name, rows
        self.extra: dict[str, list[Any]] = {}
        self.logged: dict[str, list[float]] = {}

    def log_extra(self, column: str, values: Any) -> None:
        """Show `values`, one per completion, as a column of the completion tables."""
        values = values.tolist() if hasattr(values, "tolist") else values
        if (
            not isinstance(column, str)
            or not isinstance(values, list | tuple)
            or self.rows not in (None, len(values))
        ):
            found = f"{len(values)} values" if isinstance(values, list | tuple) else type(values).__name__
            raise RewardError(
                f"reward {self.name!r}: log_extra({column!r}, …) got {found}; expected a column's name and a list of "
                f"{self.rows} values, one per completion"
            )
        self.extra[column] = list(values)

    def log_metric(self, name: str, value: Any) -> None:
        """Log `value` as `name`: the mean over the calls between two logs."""
        value = value.item() if hasattr(value, "item") else value
        if not isinstance(name, str) or not isinstance(value, Real) or not math.isfinite(value):
            raise RewardError(
                f"reward {self.name!r}: log_metric({name!r}, {value!r}); expected a metric's name and a finite number"
            )
        self.logged.setdefault(name, []).append(float(value))


def as_text(completion: Any) -> str:
    """A completion's text; of messages, their contents."""
    if isinstance(completion, str):
        return completion
    return "\n".join(content(message) for message in completion)


def content(message: Mapping[str, Any]) -> str:
    """A message's text: of one in parts the texts among them, of a bare tool call nothing."""
    found = message.get("content") or ""
    if isinstance(found, str):
        return found
    return "".join(str(part.get("text", "")) if isinstance(part, Mapping) else str(part) for part in found)
