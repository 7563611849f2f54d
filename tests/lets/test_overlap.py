"""Masks against chance (Figure 7): the hypergeometric law, and what is not chance."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom, spearmanr

from paperlib.errors import InputError
from paperlib.lets import overlap, pruning
from paperlib.lets.overlap import Overlap

masks = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


def drawn(k, seed, *shape):
    like = {"w": torch.zeros(shape)}
    return pruning.masks(overlap.uniform(like, seed), k)


# --- two masks


@given(masks)
def test_counts_and_chance(pairs):
    """Against sets of places, and the moments of the hypergeometric law, summed over its probabilities."""
    a, b = (torch.tensor(column) for column in zip(*pairs, strict=True))
    cut = len(pairs) // 2
    found = Overlap.of({"x": a[:cut], "y": a[cut:]}, {"x": b[:cut], "y": b[cut:]})
    ours, theirs = ({place for place, pair in enumerate(pairs) if pair[side]} for side in (0, 1))
    assert (found.entries, found.kept, found.shared) == (len(pairs), (len(ours), len(theirs)), len(ours & theirs))
    assert found.expected == pytest.approx(len(ours) * len(theirs) / len(pairs))
    if found.z is None:
        assert found.sd == 0
        assert {len(ours), len(theirs)} & {0, len(pairs)}
    else:
        shares = np.arange(len(pairs) + 1)
        chances = hypergeom.pmf(shares, len(pairs), len(ours), len(theirs))
        mean = chances @ shares
        variance = chances @ (shares - mean) ** 2
        assert found.sd == pytest.approx(variance**0.5)
        assert found.z == pytest.approx((len(ours & theirs) - mean) / variance**0.5)
    if ours and theirs:
        assert found.fraction == len(ours & theirs) / min(len(ours), len(theirs))
        assert found.iou == len(ours & theirs) / len(ours | theirs)
        assert found.enrichment == pytest.approx(found.shared / found.expected)
    else:
        assert found.fraction is None and found.enrichment is None


def test_chance_at_the_size_of_bert_large():
    """Masks of 0.5 %: 26.2 of 5243 entries of one matrix are shared by chance, 78.6 of 15729 of three; an overlap of 1 % is 5 sigma."""
    one, other = (drawn(0.005, seed, 1024, 1024) for seed in (0, 1))
    found = Overlap.of(one, other)
    assert found.kept == (5243, 5243) and pruning.kept(0.005, 1024**2) == 5243
    assert (round(found.expected, 1), round(found.sd, 2)) == (26.2, 5.09)
    assert abs(found.z) < 4
    assert (found.expected + 5 * found.sd) / 5243 == pytest.approx(0.00985, abs=1e-5)
    matrices = drawn(0.005, 2, 3, 1024, 1024)
    three = Overlap.of(matrices, matrices)
    assert three.kept == (15729, 15729) and (round(three.expected, 1), round(three.sd, 1)) == (78.6, 8.8)


def test_uniform_masks_share_as_the_law_says():
    """C11: mean and variance over 4000 pairs of 2 of 16 entries, within four standard errors."""
    generator = np.random.default_rng(0)
    places = [[set(generator.choice(16, 2, replace=False)) for _ in range(2)] for _ in range(4000)]
    shared = np.array([len(a & b) for a, b in places])
    law = hypergeom(16, 2, 2)
    found = Overlap.of(*({"w": torch.arange(16) < 2} for _ in range(2)))
    assert (found.expected, found.sd) == (pytest.approx(law.mean()), pytest.approx(law.std()))
    assert shared.mean() == pytest.approx(found.expected, abs=4 * found.sd / 4000**0.5)
    assert shared.var() == pytest.approx(found.sd**2, rel=0.15)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4), st.integers(3, 5))
def test_chance_within_columns_is_a_hypergeometric_law_of_each(columns, rows):
    """Means and variances of independent columns add up."""
    a, b = (torch.tensor(counts) for counts in zip(*columns, strict=True))
    shares = np.arange(rows + 1)
    chances = [hypergeom.pmf(shares, rows, x, y) for x, y in columns]
    means = [chance @ shares for chance in chances]
    cut = len(columns) // 2
    parts = [{"x": each[:cut], "y": each[cut:]} for each in (a, b)]
    expected, sd = overlap.column_chance(*parts, {"x": rows, "y": rows})
    assert expected == pytest.approx(sum(means))
    spread = sum(chance @ (shares - mean) ** 2 for chance, mean in zip(chances, means, strict=True))
    assert sd**2 == pytest.approx(spread, abs=1e-12)


def test_masks_of_one_column_share_what_the_column_makes_them_share():
    """25 of 50 rows each: 12.5 are expected within the column, where chance over the whole matrix expects one."""
    one, other = (torch.zeros(50, 12, dtype=torch.bool) for _ in range(2))
    one[:25, 3] = other[10:35, 3] = True
    found = Overlap.of({"w": one}, {"w": other})
    assert (found.shared, round(found.expected, 2)) == (15, 1.04) and found.z > 10
    expected, sd = overlap.column_chance({"w": one.sum(0)}, {"w": other.sum(0)}, {"w": 50})
    assert expected == 12.5 and (15 - expected) / sd < 2


def test_columns_of_other_matrices_are_not_compared():
    with pytest.raises(InputError, match="give the same weights"):
        overlap.column_chance({"w": torch.ones(3)}, {"w": torch.ones(4)}, {"w": 2})


def test_a_mask_is_all_of_itself():
    mask = drawn(0.1, 0, 20, 30)
    found = Overlap.of(mask, mask)
    assert found.fraction == found.iou == 1 and found.enrichment == pytest.approx(10) and found.z > 20


def test_masks_of_other_weights_are_not_compared():
    mask = {"w": torch.ones(2, 3, dtype=torch.bool)}
    for other in ({"v": mask["w"]}, {"w": mask["w"].t()}, {}):
        with pytest.raises(InputError, match="overlap: masks of .*; give the same weights"):
            Overlap.of(mask, other)
    with pytest.raises(InputError, match="at least one entry"):
        Overlap.of({}, {})


# --- structure


def test_kept_entries_of_one_row():
    """Row counts of 4 0 0 0 under mean 1 have variance 3; chance gives 4 1/4 3/4 (16 - 4) / 15 = 0.6. Columns are all alike."""
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[2] = True
    assert overlap.concentration(mask) == {"rows": pytest.approx(5.0), "columns": 0.0}
    assert overlap.concentration(mask.t()) == {"rows": 0.0, "columns": pytest.approx(5.0)}


def test_uniform_masks_do_not_crowd():
    found = [overlap.concentration(drawn(0.05, seed, 64, 96)["w"]) for seed in range(40)]
    for name in ("rows", "columns"):
        assert np.mean([each[name] for each in found]) == pytest.approx(1, abs=0.1)


def test_masks_of_nothing_or_everything_have_no_structure():
    for mask in (torch.zeros(3, 4, dtype=torch.bool), torch.ones(3, 4, dtype=torch.bool)):
        assert overlap.concentration(mask) == {"rows": None, "columns": None}


@pytest.mark.parametrize("mask", [torch.ones(3, dtype=torch.bool), torch.ones(2, 2)])
def test_only_boolean_matrices_have_rows_and_columns(mask):
    with pytest.raises(InputError, match="give a boolean matrix"):
        overlap.concentration(mask)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=20))
def test_ranks_correlate_as_scipy_says(pairs):
    a, b = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    found = overlap.rank_correlation({"x": a[:1], "y": a[1:]}, {"x": b[:1], "y": b[1:]})
    if found is None:
        assert len(set(a.tolist())) == 1 or len(set(b.tolist())) == 1
    else:
        assert found == pytest.approx(float(spearmanr(a, b).statistic), abs=1e-12)


# --- on a page


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.data())
def test_blocks_hold_every_kept_entry_and_nothing_else(rows, columns, most, data):
    places = data.draw(st.lists(st.integers(0, rows * columns - 1), unique=True))
    mask = overlap.matrix(torch.tensor(places), (rows, columns))
    assert mask.flatten().nonzero()[:, 0].tolist() == sorted(places)
    seen, side = overlap.blocks(mask, most), -(-max(rows, columns) // most)
    assert seen.shape == (-(-rows // side), -(-columns // side)) and max(seen.shape) <= most
    kept = {(place // columns // side, place % columns // side) for place in places}
    assert {tuple(each) for each in seen.nonzero().tolist()} == kept


def test_only_boolean_matrices_are_drawn():
    with pytest.raises(InputError, match="give a boolean matrix"):
        overlap.blocks(torch.ones(2, 2), 1)
