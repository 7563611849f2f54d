"""Which rows make a batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlib.training.batches import POOL, epoch_batches, in_order_of_length

LENGTHS = st.lists(st.integers(1, 128), min_size=1, max_size=400).map(np.array)


def padding(lengths, batches):
    """Share of the padded rectangle that is filling."""
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    return 1 - lengths.sum() / padded


@given(lengths=LENGTHS, size=st.integers(1, 33), seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_an_epoch_has_every_row_exactly_once_in_full_batches_but_one(lengths, size, seed, epoch):
    batches = epoch_batches(lengths, size, seed, epoch)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    rest = len(lengths) % size
    assert sorted(map(len, batches)) == [rest] * (rest > 0) + [size] * (len(lengths) // size)


@given(lengths=LENGTHS, size=st.integers(1, 33))
def test_seed_and_epoch_alone_decide(lengths, size):
    once = epoch_batches(lengths, size, 3, 5)
    np.random.default_rng(3).permutation(9), np.random.permutation(9)
    again = epoch_batches(lengths, size, 3, 5)
    assert [batch.tolist() for batch in once] == [batch.tolist() for batch in again]


def test_other_seeds_and_epochs_give_other_batches():
    lengths = np.random.default_rng(0).integers(5, 60, 300)
    orders = {str(np.concatenate(epoch_batches(lengths, 16, s, e)).tolist()) for s in range(4) for e in range(4)}
    assert len(orders) == 16


@given(lengths=LENGTHS, size=st.integers(1, 8))
def test_within_a_pool_batches_are_cuts_of_the_rows_in_order_of_length(lengths, size):
    """Few enough rows to be one pool: no two batches overlap in length but at their ends."""
    lengths = lengths[: POOL * size]
    ranges = sorted((lengths[batch].min(), lengths[batch].max()) for batch in epoch_batches(lengths, size, 0, 0))
    assert all(lower[1] <= upper[0] for lower, upper in zip(ranges, ranges[1:], strict=False))


def test_lengths_come_in_random_order():
    """Not from long to short, over the epoch as a whole."""
    lengths = np.random.default_rng(0).integers(5, 60, 8000)
    means = [lengths[batch].mean() for batch in epoch_batches(lengths, 16, 0, 0)]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.1


def test_batches_mix_anew_each_epoch():
    """Two rows that meet in one epoch seldom meet in the next."""
    lengths = np.full(1000, 20)
    first, second = ({frozenset(pair) for b in epoch_batches(lengths, 2, 0, e) for pair in [b]} for e in (0, 1))
    assert len(first & second) < 10


def test_padding_nearly_vanishes():
    """Log-normal lengths such as RTE's: well below what batches at random would pad."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(4, 0.5, 2490), 10, 128).astype(int)
    at_random = np.array_split(rng.permutation(2490), 156)
    assert padding(lengths, at_random) > 0.3
    assert padding(lengths, epoch_batches(lengths, 16, 0, 0)) < 0.05


@given(lengths=LENGTHS, size=st.integers(1, 33))
def test_evaluation_goes_from_long_to_short_over_all_rows(lengths, size):
    batches = list(in_order_of_length(lengths, size))
    order = np.concatenate(batches)
    assert sorted(order) == list(range(len(lengths)))
    assert (np.diff(lengths[order]) <= 0).all()
    assert all(len(batch) == size for batch in batches[:-1])


@pytest.mark.parametrize("rows, size, accumulation, steps", [(2490, 16, 1, 156), (2490, 16, 4, 39), (5, 2, 2, 2)])
def test_steps_per_epoch_count_the_batches(make_settings, rows, size, accumulation, steps):
    settings = make_settings(batch_size=size, accumulation=accumulation, epochs=3)
    batches = epoch_batches(np.ones(rows, int), size, 0, 0)
    assert settings.steps_per_epoch(rows) == -(-len(batches) // accumulation) == steps
    assert settings.total_steps(rows) == 3 * steps


@pytest.mark.parametrize("rows, steps", [(2490, 468), (3668, 690), (5749, 1080), (8551, 1605), (8000, 1500)])
def test_step_counts_of_the_dps_paper(make_settings, rows, steps):
    """Three epochs at batch 16: RTE, MRPC, STS-B, CoLA, out of domain."""
    assert make_settings(batch_size=16, epochs=3).total_steps(rows) == steps
