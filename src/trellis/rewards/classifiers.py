"""Sequence classifiers as rewards: they read text, through a tokenizer of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..models import base_causal_lm, classifier_head, learned_positions, load_classifier, load_tokenizer
from ..models.sharded import whole
from ..rollout.modes import evaluation
from ..scoring import sequence_scores
from ..types import TokenBatch
from .request import Notes, RewardError, RewardRequest


class ClassifierReward:
    """A sequence classifier with one score, or its name; the score of a completion is read at the last token of
    prompt + completion, which is an EOS where the completion is finished and the reward's tokenizer has one.

    tokenizer: the first there is of `processing_class`, the one saved with the model, `default`. At most `rows` rows are
    scored at once. Raises TypeError or ValueError for a model that gives no trained single score, or without a tokenizer.
    """

    is_async = False

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module,
        processing_class: Any = None,
        *,
        default: Any = None,
        device: torch.device | str | None = None,
        rows: int = 64,
    ) -> None:
        self.model = _load(model)
        self.name = _name(model, self.model)
        self.rows = rows
        self.tokenizer = _tokenizer(self.name, processing_class, model, default)
        self.limit = learned_positions(base_causal_lm(self.model))
        _check_vocabulary(self.name, self.model, self.tokenizer)
        if device is not None:
            self.model.to(device)

    def check(self, columns: Any) -> None:
        """A classifier reads no columns."""

    def __call__(self, request: RewardRequest, notes: Notes | None = None) -> list[float | RewardError]:
        """[B]: the classifier's scores, and an error for each completion that it cannot read."""
        found: list[Any] = [self._read(request, row) for row in range(len(request))]
        order = [row for row, ids in enumerate(found) if not isinstance(ids, RewardError)]
        order.sort(key=lambda row: len(found[row]))
        with torch.no_grad(), whole(self.model), evaluation(self.model):
            for start in range(0, len(order), self.rows):
                rows = order[start : start + self.rows]
                scores = self._score([found[row] for row in rows]).tolist()
                for row, score in zip(rows, scores, strict=True):
                    found[row] = score
        return found

    def _read(self, request: RewardRequest, row: int) -> list[int] | RewardError:
        try:
            return self.tokens(request, row)
        except RewardError as error:
            return error

    def _score(self, ids: list[list[int]]) -> Tensor:
        device = next(self.model.parameters()).device
        batch = TokenBatch.from_lists(ids, [[0] * len(row) for row in ids]).to(device)
        return sequence_scores(self.model, batch).float().cpu()

    def tokens(self, request: RewardRequest, row: int) -> list[int]:
        """What the classifier reads for one row."""
        finished = request.finished is None or bool(request.finished[row])
        prompt, completion = request.prompts[row], request.completions[row]
        if isinstance(prompt, str) and isinstance(completion, str):
            ids = list(self.tokenizer(prompt + completion)["input_ids"])
            eos = self.tokenizer.eos_token_id
            # Reward models are trained on texts that end with it, and read their score there.
            if finished and eos is not None and ids[-1:] != [eos]:
                ids.append(eos)
        else:
            ids = self._conversation(conversation(prompt, completion), finished)
        self._check(ids, request, row)
        return ids

    def _conversation(self, messages: list[Mapping[str, Any]], finished: bool) -> list[int]:
        if not getattr(self.tokenizer, "chat_template", None):
            raise RewardError(
                f"reward {self.name!r} is asked about conversations, but its tokenizer has no chat_template; set one, or pass "
                "reward_processing_classes="
            )
        rendered = self.tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=False, continue_final_message=not finished
        )
        return list(rendered)

    def _check(self, ids: list[int], request: RewardRequest, row: int) -> None:
        if not ids:
            raise RewardError(
                f"reward {self.name!r}: prompt and completion {row} are empty, there is nothing to score"
            )
        if self.limit and len(ids) > self.limit:
            raise RewardError(
                f"reward {self.name!r} reads {self.limit} tokens at most, completion {row} with its prompt has {len(ids)} "
                f"({request.excerpt(row)}); shorten prompts or completions, or use a model that reads more"
            )


def conversation(prompt: Any, completion: Any) -> list[Mapping[str, Any]]:
    """Prompt and completion, texts or messages, as one list of messages; an answer begun in the prompt is continued."""
    before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    answer = (
        [{"role": "assistant", "content": completion}] if isinstance(completion, str) else list(completion)
    )
    if before and answer and before[-1]["role"] == answer[0]["role"] == "assistant":
        begun = {**answer[0], "content": before[-1]["content"] + answer[0]["content"]}
        return [*before[:-1], begun, *answer[1:]]
    return [*before, *answer]


def _load(model: Any) -> nn.Module:
    loaded = load_classifier(model) if isinstance(model, str | os.PathLike) else model
    base = base_causal_lm(loaded)
    if loaded is not model and not _is_adapter(model):
        kinds = base.config.architectures or []
        if not any(kind.endswith("ForSequenceClassification") for kind in kinds):
            raise ValueError(
                f"the reward model {os.fspath(model)!r} holds {', '.join(kinds)}, whose score head would be random; expected a "
                "trained sequence classifier (RewardTrainer makes one)"
            )
    classifier_head(base)
    if base.config.num_labels != 1:
        raise ValueError(
            f"a reward model gives 1 score per text, {type(base).__name__} gives {base.config.num_labels}; load it with "
            "num_labels=1, or wrap it in a Python function that returns the score you mean"
        )
    return loaded


def _is_adapter(path: str | os.PathLike[str]) -> bool:
    return (Path(path).expanduser() / "adapter_config.json").is_file()


def _name(model: Any, loaded: nn.Module) -> str:
    path = (
        os.fspath(model)
        if isinstance(model, str | os.PathLike)
        else base_causal_lm(loaded).config._name_or_path
    )
    return str(path).replace("\\", "/").rstrip("/").rpartition("/")[2] or type(loaded).__name__


def _tokenizer(name: str, processing_class: Any, model: Any, default: Any) -> Any:
    if processing_class is not None:
        return load_tokenizer(processing_class, model)
    try:
        return load_tokenizer(None, model)
    except ValueError as error:
        if default is None:
            raise ValueError(
                f"reward model {name!r} has no tokenizer; save one beside it, or pass reward_processing_classes="
            ) from error
        return default


def _check_vocabulary(name: str, model: nn.Module, tokenizer: Any) -> None:
    embedded = getattr(model.get_input_embeddings(), "num_embeddings", None)  # type: ignore[operator]
    ids: Sequence[int] = [i for token, i in tokenizer.get_vocab().items() if token != tokenizer.pad_token]
    if embedded and ids and max(ids) >= embedded:
        raise ValueError(
            f"reward model {name!r} embeds {embedded} tokens, its tokenizer has ids up to {max(ids)}; pass the tokenizer that it "
            "was trained with as reward_processing_classes="
        )
