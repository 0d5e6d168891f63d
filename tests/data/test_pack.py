"""Packing is a partition: nothing is lost, doubled or mixed."""

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trellis.data import collate_tokens, prepare_language_modeling
from trellis.data.pack import STRATEGIES, best_fit, pack, pack_columns, plan, segments

LENGTHS = st.lists(st.integers(0, 40), max_size=60)


def rows_of(lengths):
    start, rows = 0, []
    for length in lengths:
        ids = list(range(start, start + length))
        rows.append(
            {"input_ids": ids, "loss_mask": [0] + [1] * (length - 1) if length else [], "prompt_len": 0}
        )
        start += length
    return rows


@given(LENGTHS, st.integers(2, 24), st.sampled_from(STRATEGIES))
def test_pieces_partition_the_tokens(lengths, size, strategy):
    packed = plan(lengths, size, strategy)
    pieces = sorted(p for row in packed for p in row)
    assert all(sum(b - a for _, a, b in row) <= size for row in packed)
    kept = [min(n, size) if strategy == "bfd" else n for n in lengths]
    covered = [[j for i, a, b in pieces if i == row for j in range(a, b)] for row in range(len(lengths))]
    assert covered == [list(range(n)) for n in kept]


@given(LENGTHS, st.integers(2, 24))
def test_wrapped_blocks_are_full(lengths, size):
    blocks = [sum(b - a for _, a, b in row) for row in plan(lengths, size, "wrapped")]
    assert all(n == size for n in blocks[:-1])


def test_best_fit_takes_the_fullest_bin():
    assert best_fit([4, 3, 5, 2, 6], 10) == [[4, 0], [2, 1, 3]]


def test_best_fit_is_dense():
    lengths = [1 + (7 * i) % 50 for i in range(1000)]
    bins = best_fit(lengths, 128)
    assert sum(lengths) / (128 * len(bins)) > 0.98


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_segments_are_the_rows_and_their_first_token_is_not_trained(strategy):
    rows = rows_of([5, 9, 3, 30, 1])
    packed = pack(rows, 10, strategy)
    parts = [part for row in packed for part in segments(row)]
    assert all(mask[0] == 0 and all(mask[1:]) for _, mask in parts)
    assert all(ids == list(range(ids[0], ids[0] + len(ids))) for ids, _ in parts)
    found = sorted(i for ids, _ in parts for i in ids)
    tokens = [row["input_ids"][:10] if strategy == "bfd" else row["input_ids"] for row in rows]
    expected = [i for ids in tokens for i in ids]
    assert found == expected or (strategy == "bfd_split" and set(expected) - set(found) <= {47})


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_container_packs_alike(strategy, tokenizer):
    rows = [{"text": "it is good " * (1 + i % 7)} for i in range(1100)]
    options = {"max_length": 40, "packing": strategy}
    plain, report = prepare_language_modeling(rows, tokenizer, **options)
    data = datasets.Dataset.from_list(rows)
    assert list(prepare_language_modeling(data, tokenizer, **options)[0]) == plain
    assert list(prepare_language_modeling(data.to_iterable_dataset(), tokenizer, **options)[0]) == plain
    assert len(plain) < len(rows)
    assert (report.rows_cut > 0) == (strategy == "bfd")


def test_a_packed_row_is_collated_as_its_segments():
    packed = pack(rows_of([5, 4, 1]), 10, "bfd")
    assert len(packed) == 1
    batch = collate_tokens(packed, pad=99)
    alone = collate_tokens(rows_of([5, 4, 1]), pad=99)
    assert batch.input_ids.tolist() == alone.input_ids.tolist()
    assert batch.loss_mask.tolist() == alone.loss_mask.tolist()
    assert batch.group.tolist() == [0, 1, 2]


def test_a_packed_data_set_can_be_prepared_again(tokenizer):
    packed, _ = prepare_language_modeling(["it is good"] * 5, tokenizer, max_length=16, packing="bfd")
    again, _ = prepare_language_modeling(packed, tokenizer, max_length=16)
    assert again == packed


def test_a_block_in_which_nothing_is_trained_is_left_out():
    columns = {"input_ids": [[1, 2, 3, 4, 5, 6]], "loss_mask": [[0, 0, 0, 0, 0, 1]]}
    assert pack_columns(columns, 3, "bfd_split")["input_ids"] == [[4, 5, 6]]


@pytest.mark.parametrize(
    ("size", "strategy", "says"), [(1, "bfd", "max_length >= 2"), (8, "x", "is not known")]
)
def test_impossible_plans_are_refused(size, strategy, says):
    with pytest.raises(ValueError, match=says):
        plan([3], size, strategy)
