"""Masks against chance (Figure 7): the hypergeometric law, what is not chance, and the study that draws the figure."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom, spearmanr

from paperlib.errors import InputError
from paperlib.lets import overlap, pruning
from paperlib.lets.architecture import Architecture
from paperlib.lets.masked_tuning import WarmUp, delta_pruned, owned
from paperlib.lets.overlap import FINAL, MAGNITUDE, OTHER_SEED, RANDOM, UNIFORM, Overlap, Study
from paperlib.lets.problem import TaskProblem
from paperlib.lets.readout import ReadoutSizes

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


@pytest.mark.parametrize(("layers", "index"), [(24, 11), (12, 5), (6, 2), (2, 0), (3, 0)])
def test_the_middle_layer(layers, index):
    assert overlap.middle(layers) == index
    assert overlap.watched(layers)[2] == f"layers.{index}.attention.value"


def test_one_layer_has_no_middle():
    with pytest.raises(InputError, match="an encoder of 1 layers has no middle one"):
        overlap.middle(1)


# --- the study

WALK = WarmUp(steps=6, batch_size=4, learning_rate=1e-3, precision="fp32")


@pytest.fixture
def problem(make_problem):
    return TaskProblem.whole(make_problem(train=12, dropout=0.2), ReadoutSizes(5, 4))


def same(one, other):
    return all(torch.equal(one.scores[name], other.scores[name]) for name in one.scores) and one.kept == other.kept


def test_a_study_holds_every_kind_of_mask(problem):
    looks = Study(WALK, other_seed=1, accumulated=(3, 5), k=0.05).looks(problem)
    assert set(looks) == {"3", "5", RANDOM, FINAL, MAGNITUDE, UNIFORM, OTHER_SEED}
    entries = sum(own.offset.weight.numel() for own in owned(problem.fresh().model).values())
    for kind, look in looks.items():
        assert list(look.masks) == [f"layers.0.attention.{each}" for each in ("query", "key", "value")]
        assert len(look.kept) == 12 and sum(look.kept.values()) == round(0.05 * entries), kind
        assert all(int(mask.sum()) == look.kept[name] for name, mask in look.masks.items())
    assert "model" not in vars(problem), "the problem's own sub-task is not even drawn"


def test_a_study_is_a_function_of_its_seeds_and_looks_change_nothing(problem):
    study = Study(WALK, other_seed=1, accumulated=(6,), k=0.05)
    first = study.looks(problem)
    torch.rand(3)
    assert same(first["6"], first[FINAL]), "the last step's mask is the final one"
    more = Study(WALK, other_seed=1, accumulated=(1, 2, 6), k=0.05).looks(problem)
    assert all(same(first[kind], more[kind]) for kind in first)
    assert not same(first[OTHER_SEED], first[FINAL]) and not same(more["1"], more["2"])
    swapped = Study(WarmUp(**vars(WALK) | {"seed": 1}), other_seed=0, k=0.05, accumulated=(6,)).looks(problem)
    assert same(swapped[FINAL], first[OTHER_SEED])


def test_the_accumulated_mask_is_that_of_delta_pruning(problem):
    """Where Algorithm 2 is run for as many steps as the study."""
    look = Study(WALK, other_seed=1, accumulated=(6,), k=0.05).looks(problem)["6"]
    pruned = delta_pruned(problem, 0.05, WALK)
    for name, mask in look.masks.items():
        assert torch.equal(pruned[name].indices.long(), mask.flatten().nonzero()[:, 0])


def test_masks_of_each_matrix_alone(problem):
    looks = Study(WALK, other_seed=1, accumulated=(3,), k=0.05, per_matrix=True).looks(problem)
    assert all(look.kept[name] == round(0.05 * 32 * 32) for look in looks.values() for name in look.masks)


def test_the_table_compares_with_the_final_mask(problem):
    looks = Study(WALK, other_seed=1, accumulated=(3, 5, 6), k=0.05, per_matrix=True).looks(problem)
    rows = overlap.table(looks)
    assert json.loads(json.dumps(rows)) == rows
    assert len(rows) == (len(looks) - 1) * 4
    by = {(row["mask"], row["matrix"]): row for row in rows}
    assert by["6", "all"]["fraction"] == by["6", "all"]["spearman"] == 1
    assert by["5", "all"]["z"] > 8 > abs(by[UNIFORM, "all"]["z"])
    for kind in looks:
        if kind != FINAL:
            parts = [by[kind, matrix] for matrix in ("query", "key", "value")]
            assert sum(part["shared"] for part in parts) == by[kind, "all"]["shared"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"accumulated": (7,)}, r"looks after \[7\] of 6 steps"),
        ({"accumulated": ()}, r"looks after \[\] of 6 steps"),
        ({"accumulated": (0,)}, "give steps from 1"),
        ({"other_seed": 0}, "seed 0 twice"),
    ],
)
def test_a_study_that_says_nothing_is_refused(changed, told):
    with pytest.raises(InputError, match=told):
        Study(WALK, **({"other_seed": 1, "accumulated": (3,)} | changed))


def test_a_study_needs_the_figure_s_matrices(problem):
    with pytest.raises(InputError, match="does not own layers.0.attention.key; give TaskProblem.whole"):
        Study(WALK, 1, (3,)).looks(problem.fresh(Architecture.freeze_bottom(2, 1)))


@pytest.mark.parametrize("k", [0.0, 1.5, 1e-9])
def test_the_share_is_checked(problem, k):
    with pytest.raises(InputError, match="delta-pruning: "):
        Study(WALK, 1, (3,), k=k).looks(problem)
