"""A user's own function in the place of sampling."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ..metrics import Metric
from ..rollout import Completion, Episodes
from ..rollout.episodes import Row, Turn

NEEDED = ("prompt_ids", "completion_ids", "logprobs")
MASKS = ("env_mask", "completion_mask")
BY_NAME = ("seeds", "turn")
FORM = "expected {'prompt_ids': …, 'completion_ids': …, 'logprobs': …}, each a list with one list per prompt"


class RolloutFunc:
    """A driver: `function(prompts)` or `function(prompts, trainer)` → a dict of lists with one entry per prompt.

    prompts: as in the data, one per completion, a prompt's samples side by side. `prompt_ids`, `completion_ids`: tokens;
    `logprobs`: of each completion token, or of each that the policy sampled; `env_mask` (or `completion_mask`), if there: 1 for
    tokens that the policy sampled, 0 for what it was told. Everything else becomes a column for reward functions. A function
    with parameters `seeds` (one per completion) or `turn` (the trainer's sampler) gets them. `trainer` may be set later.
    """

    def __init__(
        self, function: Callable[..., Any], *, stop_ids: Collection[int], trainer: Any = None
    ) -> None:
        if not callable(function):
            raise TypeError(f"rollout_func must be a function, found {type(function).__name__}")
        parameters = inspect.signature(function).parameters.values()
        self.named = [p.name for p in parameters if p.name in BY_NAME]
        positional = [
            p
            for p in parameters
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name not in BY_NAME
        ]
        many = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        if not (positional or many) or sum(p.default is p.empty for p in positional) > 2:
            raise TypeError(
                f"rollout_func must take (prompts) or (prompts, trainer), found {inspect.signature(function)}"
            )
        self.function, self.stop_ids, self.trainer = function, frozenset(stop_ids), trainer
        self.takes_trainer = many or len(positional) > 1
        self.metrics: list[Metric] = []

    def __call__(self, rows: Sequence[Row], turn: Turn, seeds: Sequence[int]) -> Episodes:
        """The function's completions. Raises ValueError when what it returned is not of that form."""
        offered = {"seeds": list(seeds), "turn": turn}
        given = [[row["prompt"] for row in rows], *([self.trainer] if self.takes_trainer else [])]
        found = self._checked(
            self.function(*given, **{name: offered[name] for name in self.named}), len(rows)
        )
        mask = next((found.pop(name) for name in MASKS if name in found), None)
        prompts, ids, logps = (found.pop(name) for name in NEEDED)
        completions = [
            self._completion(i, ids[i], logps[i], None if mask is None else mask[i]) for i in range(len(rows))
        ]
        return Episodes(completions, prompts=[[int(t) for t in prompt] for prompt in prompts], columns=found)

    def _checked(self, returned: Any, count: int) -> dict[str, list[Any]]:
        if not isinstance(returned, Mapping):
            raise ValueError(f"rollout_func returned {type(returned).__name__}; {FORM}")
        missing = [name for name in NEEDED if returned.get(name) is None]
        if missing:
            raise ValueError(f"rollout_func returned {sorted(returned)} without {missing[0]!r}; {FORM}")
        found = {k: _plain(v) for k, v in returned.items() if not (k in MASKS and v is None)}
        for name, values in found.items():
            size = len(values) if isinstance(values, list | tuple) else f"a {type(values).__name__}"
            if size != count:
                raise ValueError(
                    f"rollout_func was asked for {count} completions, but {name!r} has {size} entries; expected one per prompt "
                    "it was given (a prompt comes as many times as it is to be sampled)"
                )
        return found

    def _completion(self, row: int, ids: Any, logps: Any, mask: Any) -> Completion:
        ids, logps = [int(t) for t in _plain(ids)], [float(x) for x in _plain(logps)]
        marks = [True] * len(ids) if mask is None else [bool(m) for m in _plain(mask)]
        if len(marks) != len(ids):
            raise ValueError(
                f"rollout_func: completion {row} has {len(ids)} tokens but {len(marks)} mask entries"
            )
        if len(logps) == len(ids):
            logps = [x for x, sampled in zip(logps, marks, strict=True) if sampled]
        if len(logps) != sum(marks):
            raise ValueError(
                f"rollout_func: completion {row} has {len(ids)} tokens, {sum(marks)} of them sampled, but {len(logps)} logprobs; "
                "expected one per token, or one per sampled token"
            )
        stopped = bool(ids) and marks[-1] and ids[-1] in self.stop_ids
        return Completion(ids, logps, logps, "stop" if stopped else "length", None if all(marks) else marks)


def _plain(value: Any) -> Any:
    """Tensors and arrays as lists."""
    return value.tolist() if hasattr(value, "tolist") else value
