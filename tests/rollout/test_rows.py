"""Completions as right-padded rows."""

import pytest
import torch

from trellis.rollout import Completion, spread, to_batch


def completion(*ids):
    return Completion(list(ids), [-0.5] * len(ids), [-0.5] * len(ids), "stop")


def test_rows_are_prompt_and_completion():
    batch = to_batch([[5, 6, 7], [8]], [completion(1, 2), completion(3)], group=[4, 9], pad=2)
    assert batch.input_ids.tolist() == [[5, 6, 7, 1, 2], [8, 3, 2, 2, 2]]
    assert batch.loss_mask.int().tolist() == [[0, 0, 0, 1, 1], [0, 1, 0, 0, 0]]
    assert batch.lengths.tolist() == [5, 2]
    assert batch.prompt_len.tolist() == [3, 1]
    assert batch.group.tolist() == [4, 9]


def test_a_sampled_pad_id_is_a_token_like_any_other():
    batch = to_batch([[2, 2]], [completion(2, 2, 2)], pad=2)
    assert batch.lengths.tolist() == [5]
    assert batch.loss_mask.int().tolist() == [[0, 0, 1, 1, 1]]


def test_several_completions_share_their_prompt():
    batch = to_batch([[5], [6, 7]], [completion(1), completion(2), completion(3), completion(4)])
    assert batch.input_ids[:, :3].tolist() == [[5, 1, 0], [5, 2, 0], [6, 7, 3], [6, 7, 4]]
    assert batch.group.tolist() == [0, 0, 1, 1]


def test_values_land_on_their_tokens():
    batch = to_batch([[5, 6, 7], [8]], [completion(1, 2), completion(3)])
    placed = spread([[0.25, -1.0], torch.tensor([3.0])], batch)
    assert placed.dtype == torch.float32
    assert placed.tolist() == [[0, 0, 0, 0.25, -1.0], [0, 3.0, 0, 0, 0]]


def test_lengths_that_do_not_fit_are_refused():
    batch = to_batch([[5, 6, 7], [8]], [completion(1, 2), completion(3)])
    with pytest.raises(ValueError, match="row 1 has 1 completion tokens but 2 values"):
        spread([[1.0, 2.0], [1.0, 2.0]], batch)
    with pytest.raises(ValueError, match="2 rows need 2 lists of values, found 1"):
        spread([[1.0, 2.0]], batch)
    with pytest.raises(ValueError, match="3 completions cannot be shared out evenly over 2 prompts"):
        to_batch([[5], [6]], [completion(1)] * 3)


def test_no_rows():
    assert len(to_batch([], [])) == 0
