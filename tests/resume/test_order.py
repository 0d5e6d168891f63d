"""The order of training data depends on the seed and the epoch, never on what else drew random numbers."""

import itertools

import pytest
import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from trellis.trainers.order import SeededOrder, endless, seeded

from .cases import sft


def test_length_groups_are_a_function_of_seed_and_epoch():
    lengths = torch.randint(1, 50, (64,)).tolist()
    order = seeded(LengthGroupedSampler(4, lengths=lengths), seed=5)
    assert isinstance(order, SeededOrder)

    def epoch(number):
        order.set_epoch(number)
        torch.manual_seed(int(torch.randint(1000, ())))
        return list(order)

    first, second, again = epoch(0), epoch(1), epoch(0)
    assert first == again
    assert first != second
    assert sorted(first) == list(range(64))
    assert len(order) == 64


def test_a_stream_starts_again_and_says_which_pass_it_is():
    class Stream:
        passes = []

        def set_epoch(self, epoch):
            self.passes.append(epoch)

        def __iter__(self):
            return iter("abc")

    assert "".join(itertools.islice(endless(Stream()), 8)) == "abcabcab"
    assert Stream.passes == [0, 1, 2]
    assert endless([1, 2]) == [1, 2]


def test_an_empty_stream_is_an_error_not_a_hang():
    with pytest.raises(ValueError, match="without rows"):
        next(iter(endless(iter(()))))


def test_every_batch_of_a_stream_is_full(tmp_path):
    loader = sft(str(tmp_path), stream=True).get_train_dataloader()
    batches = list(itertools.islice(loader, 10))
    assert [len(batch) for batch in batches] == [2] * 10
    for first, second in zip(batches[:5], batches[5:], strict=True):
        assert torch.equal(first.input_ids, second.input_ids)


def test_a_stream_that_ends_inside_a_step_still_fills_it(tmp_path):
    trainer = sft(str(tmp_path), stream=True, save_strategy="no", max_steps=5, logging_steps=1)
    trainer.train()
    tokens = [entry["num_tokens"] for entry in trainer.state.log_history if "num_tokens" in entry]
    lengths = [len(row["input_ids"]) for row in itertools.islice(endless(trainer.train_dataset), 20)]
    assert tokens == [sum(lengths[: 4 * step]) for step in range(1, 6)]
