"""Heat maps: Figure 9's grid on the paper's backbone and on encoders, and how likeness between searches is measured."""

from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlib import backbones
from paperlib.errors import InputError
from paperlib.s3delta import heatmap
from paperlib.s3delta.heatmap import Grid
from paperlib.s3delta.positions import candidates


@cache
def modules(name, space="M"):
    """Every candidate of the named backbone as a search's record tells it; no weights are made."""
    from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

    config = backbones.configuration(name)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForSequenceClassification
    with torch.device("meta"):
        model = kind.from_config(config)
    return {each.name: {**vars(each), "row": each.row, "size": each.size(model)} for each in candidates(model, space)}


# --- the grid


def test_on_t5_large_it_is_that_of_figure_9():
    grid = Grid.of(modules("t5-large-config"))
    assert grid.shape == (22, 48) and len(grid.names) == grid.candidates.sum() == 916
    assert grid.labels == [f"{side}.{layer}" for side in "ED" for layer in range(24)]
    linears = ["Q", "K", "V", "O"]
    assert list(grid.rows) == [
        *(f"{role} LoRA" for role in [*linears, "W1", "W2"]),
        *("SelfAttn LRA", "FFN LRA"),
        *("SelfAttn.LN BitFit", *(f"{role} BitFit" for role in linears), "CrossAttn.LN BitFit", "FFN.LN BitFit"),
        *("W1 BitFit", "W2 BitFit", "Final_LN BitFit"),
        *("SelfAttn.LN LNFiT", "CrossAttn.LN LNFiT", "FFN.LN LNFiT", "Final_LN LNFiT"),
    ]


def test_on_t5_large_cells_are_empty_where_the_encoder_has_no_cross_attention_and_below_final_norms():
    grid = Grid.of(modules("t5-large-config"))
    for row, cells in zip(grid.rows, grid.candidates, strict=True):
        role = row.split()[0]
        expected = {"CrossAttn.LN": range(24, 48), "Final_LN": (23, 47)}.get(role, range(48))
        assert np.flatnonzero(cells).tolist() == list(expected), row


@pytest.mark.parametrize(
    "name, space, shape",
    [
        ("bert-large-config", "M", (18, 24)),
        ("tiny-bert", "M", (18, 2)),
        ("tiny-bert", "L", (6, 2)),
        ("tiny-t5", "M", (22, 4)),
        ("tiny-bart", "M", (20, 4)),
    ],
)
def test_every_family_has_the_matching_grid(name, space, shape):
    grid = Grid.of(modules(name, space))
    assert grid.shape == shape and grid.candidates.sum() == len(modules(name, space))


def test_a_matrix_holds_every_p_in_its_modules_cell_and_0_elsewhere():
    known = modules("tiny-t5")
    grid = Grid.of(known)
    p = {name: number + 1.0 for number, name in enumerate(known)}
    matrix = grid.matrix(grid.vector(p))
    for name, module in known.items():
        column = grid.labels.index(f"{module['side'][0].upper()}.{module['layer']}")
        assert matrix[grid.rows.index(module["row"]), column] == p[name]
    assert (matrix[~grid.candidates] == 0).all() and matrix.sum() == sum(p.values())


def test_the_order_of_the_modules_given_does_not_matter():
    known = modules("tiny-t5")
    assert Grid.of(dict(sorted(known.items()))) == Grid.of(known)


def test_paths_are_brought_from_the_order_of_the_search_space_into_that_of_the_grid():
    known = modules("tiny-bert")
    grid, names = Grid.of(known), list(known)
    by_number = np.random.default_rng(0).random((3, len(names)))
    expected = [grid.vector(dict(zip(names, each, strict=True))) for each in by_number]
    assert list(grid.names) != names
    assert (grid.paths(by_number.tolist(), names) == np.array(expected)).all()


def test_upper_is_the_upper_half_of_each_stack_with_final_norms_in_the_last_layer():
    known = modules("tiny-t5")
    grid = Grid.of(known)
    expected = {name for name, module in known.items() if module["layer"] == 1}
    assert {name for name, upper in zip(grid.names, grid.upper, strict=True) if upper} == expected
    assert any("final_layer_norm" in name for name in expected)


def test_bad_input_is_named():
    known = modules("tiny-bert")
    with pytest.raises(InputError, match="no row 'Head LoRA'"):
        Grid.of({"a": {"row": "Head LoRA", "side": "encoder", "layer": 0}})
    cell = {"row": "Q LoRA", "side": "encoder", "layer": 0}
    with pytest.raises(InputError, match="one to a cell"):
        Grid.of({"a": cell, "b": cell})
    with pytest.raises(InputError, match="one to a cell"):
        Grid.of({})
    with pytest.raises(InputError, match="values of 1 modules"):
        Grid.of(known).vector({next(iter(known)): 0.5})


def test_the_published_structure_is_one_of_t5_large_within_the_published_budget():
    known = modules("t5-large-config")
    chosen = [
        module
        for module in known.values()
        if module["layer"] in heatmap.PUBLISHED_MEAN.get(module["row"], {}).get(module["side"], ())
    ]
    types = {kind: sum(m["type"] == kind for m in chosen) for kind in ("bitfit", "lora", "lra", "lnfit")}
    assert types == heatmap.PUBLISHED_TYPES["all tasks"]
    assert sum(module["size"] for module in chosen) == 102_144


# --- the picture


def test_numbers_stand_exactly_where_p_reaches_the_selection_line():
    grid = Grid.of(modules("tiny-t5"))
    p = np.linspace(0.0, 0.2, len(grid.names))
    figure, ax = plt.subplots()
    image = heatmap.draw(ax, grid, p, line=p[-5], highest=0.2)
    assert {text.get_position()[::-1] for text in ax.texts} == set(grid.cells[-5:])
    assert [text.get_text() for text in ax.texts][-1] == ".20"
    assert (np.ma.getmaskarray(image.get_array()) == ~grid.candidates).all()
    plt.close(figure)


def test_a_line_of_0_prints_no_number_where_there_is_no_module():
    grid = Grid.of(modules("tiny-t5"))
    figure, ax = plt.subplots()
    heatmap.draw(ax, grid, np.zeros(len(grid.names)), line=0.0, highest=1.0)
    assert len(ax.texts) == len(grid.names)
    plt.close(figure)


# --- likeness


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=6, max_size=6), min_size=2, max_size=4))
def test_rank_correlations_are_scipys(maps):
    from scipy.stats import spearmanr

    p = np.array(maps, dtype=float)
    found = heatmap.rank_correlations(p)
    for i, one in enumerate(p):
        for j, other in enumerate(p):
            if np.ptp(one) == 0 or np.ptp(other) == 0:
                assert np.isnan(found[i, j])
            else:
                assert found[i, j] == pytest.approx(spearmanr(one, other).statistic, abs=1e-12)


def test_maps_that_agree_on_rows_alone_lose_nothing_by_shuffling_the_layers():
    row_of = np.array([2, 0, 0, 1, 1, 2])
    by_row = np.array([[0.3, 0.1, 0.1, 0.2, 0.2, 0.3]] * 2)
    assert heatmap.correlations_by_row_alone(by_row, row_of) == pytest.approx(np.ones((2, 2)))


def test_maps_that_agree_on_layers_alone_lose_all_by_shuffling_the_layers():
    row_of = np.repeat(np.arange(4), 50)
    by_layer = np.tile(np.arange(50.0), 4)
    p = np.stack([by_layer, by_layer])
    found = heatmap.correlations_by_row_alone(p, row_of)
    assert heatmap.rank_correlations(p)[0, 1] == pytest.approx(1)
    assert abs(found[0, 1]) < 5 / np.sqrt(200 * p.shape[1])


def test_shuffling_keeps_every_value_in_its_row(monkeypatch):
    row_of, p = np.array([1, 0, 2, 0, 1, 2]), np.arange(6.0)[None]
    seen = []
    monkeypatch.setattr(heatmap, "rank_correlations", lambda maps: seen.append(maps.copy()) or np.zeros((1, 1)))
    heatmap.correlations_by_row_alone(p, row_of, draws=20)
    for maps in seen:
        for row in range(3):
            assert sorted(maps[0, row_of == row]) == sorted(p[0, row_of == row])
    assert len({tuple(maps[0]) for maps in seen}) > 1


@given(st.lists(st.sets(st.integers(0, 5), min_size=1), min_size=1, max_size=4))
def test_jaccards_are_shared_over_all(sets):
    chosen = np.array([[module in each for module in range(6)] for each in sets])
    expected = [[len(a & b) / len(a | b) for b in sets] for a in sets]
    assert heatmap.jaccards(chosen) == pytest.approx(np.array(expected))


def test_random_structures_leave_no_room_and_come_from_their_seed():
    sizes = [5, 3, 3, 2, 7]
    drawn = heatmap.random_structures(sizes, 10, draws=50)
    for chosen in drawn:
        left = 10 - np.dot(chosen, sizes)
        assert 0 <= left < min(size for size, taken in zip(sizes, chosen, strict=True) if not taken)
    assert (drawn == heatmap.random_structures(sizes, 10, draws=50)).all()
    assert len({tuple(chosen) for chosen in drawn}) > 1


SIMILARITY = np.array([[1, 0.9, 0.2, 0.1], [0.9, 1, 0.4, 0.3], [0.2, 0.4, 1, 0.7], [0.1, 0.3, 0.7, 1]])


def test_pairs_within_and_between_labels():
    assert heatmap.within_and_between(SIMILARITY, ["a", "a", "b", "b"]) == pytest.approx((0.8, 0.25))
    within, between = heatmap.within_and_between(SIMILARITY, ["a", "b", "c", "d"])
    assert np.isnan(within) and between == pytest.approx(SIMILARITY[np.triu_indices(4, 1)].mean())


def test_the_permutation_test_counts_deals_as_good_as_ours():
    # Of the three ways to pair four searches one is ours, and it is the best.
    assert heatmap.label_permutation(SIMILARITY, ["a", "a", "b", "b"]) == pytest.approx(1 / 3, abs=0.02)
    assert heatmap.label_permutation(np.ones((4, 4)), ["a", "a", "b", "b"]) == 1
    assert np.isnan(heatmap.label_permutation(SIMILARITY, ["a", "b", "c", "d"]))


def test_a_task_apart_is_measured_against_the_others_without_it():
    similarity = np.array([[1, 0.8, 0.2], [0.8, 1, 0.4], [0.2, 0.4, 1]])
    found = heatmap.apart(similarity, ["a", "b", "c"])
    assert found["c"] == pytest.approx((0.3, 0.8))
    assert found["a"] == pytest.approx((0.5, 0.4))


def test_seeds_of_one_task_do_not_count_among_the_others():
    found = heatmap.apart(SIMILARITY, ["a", "a", "b", "c"])
    assert found["c"] == pytest.approx((np.mean([0.1, 0.3, 0.7]), np.mean([0.2, 0.4])))
