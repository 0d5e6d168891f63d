"""Sequence classifiers: read at the last real token by mask, and at the states that choose tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.builders import tiny_classifier, tiny_tokenizer
from trellis.scoring import in_chunks, sequence_scores, token_values
from trellis.types import TokenBatch

from .rows import assert_gradients_close, gradients, rows

KINDS = ["llama", "gpt2", "gpt_neox", "qwen2", "mistral", "gemma2"]
LENGTHS = [11, 3, 17, 1, 6]


def one_by_one(model: Any, batch: TokenBatch) -> torch.Tensor:
    """[B]: the head at the last token of each unpadded row, whatever that token is."""
    found = []
    for i, n in enumerate(batch.lengths.tolist()):
        states = model.base_model(input_ids=batch.input_ids[i : i + 1, :n]).last_hidden_state
        found.append(model.score(states[:, -1]).squeeze())
    return torch.stack(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["auto", "padded"])
def test_a_row_is_read_at_its_last_token(kind: str, layout: str) -> None:
    model, batch = tiny_classifier(kind), rows(LENGTHS)
    want = one_by_one(model, batch)
    found = sequence_scores(model, batch, layout=layout)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-4)
    weights = torch.randn(len(batch))
    expected = gradients(model, (want * weights).sum())
    found = sequence_scores(model, batch, layout=layout)
    assert_gradients_close(gradients(model, (found * weights).sum()), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_padding_ids_are_tokens_like_any_other(layout: str) -> None:
    tokenizer = tiny_tokenizer(pad_is_eos=True)
    model, pad = tiny_classifier("llama", tokenizer), tokenizer.pad_token_id
    ids = [[7, 8, pad], [pad, 9], [pad], [5, pad, pad, 6, pad]]
    batch = TokenBatch.from_lists(ids, [[1] * len(row) for row in ids], pad=pad)
    torch.testing.assert_close(
        sequence_scores(model, batch, layout=layout), one_by_one(model, batch), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_values_are_read_where_a_token_is_chosen(layout: str) -> None:
    model, batch = tiny_classifier("llama"), rows(LENGTHS)
    found = token_values(model, batch, layout=layout)
    want = torch.zeros(batch.input_ids.shape)
    for i, n in enumerate(batch.lengths.tolist()):
        for t in range(1, n):
            states = model.base_model(input_ids=batch.input_ids[i : i + 1, :t]).last_hidden_state
            want[i, t] = model.score(states[:, -1]).squeeze()
    torch.testing.assert_close(found, want * batch.loss_mask, atol=1e-5, rtol=1e-4)


def test_an_encoder_is_asked_as_it_is() -> None:
    from transformers import BertConfig, BertForSequenceClassification

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = BertForSequenceClassification(BertConfig(vocab_size=320, num_labels=1, **shape)).eval()
    batch = rows(LENGTHS)
    want = torch.stack(
        [model(input_ids=batch.input_ids[i : i + 1, :n]).logits[0, 0] for i, n in enumerate(batch.lengths)]
    )
    torch.testing.assert_close(sequence_scores(model, batch), want, atol=1e-5, rtol=1e-4)


def test_chunks_put_together_are_the_whole() -> None:
    model, batch = tiny_classifier("llama"), rows(LENGTHS)
    want = sequence_scores(model, batch)
    for size in (1, 2, 5, 99):
        found = in_chunks(lambda part: sequence_scores(model, part), batch, size)
        torch.testing.assert_close(found, want, atol=1e-6, rtol=1e-5)
