"""The byte model of Table 3: counts from the real configuration, bytes per weight by the tensors' types, lines and fits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlib import claims
from paperlib.dps import memory
from paperlib.dps.memory import AS_CODED, GIB, LEAN, PACKED, ByteModel, Counts, Item, Line

WIDTHS = {"fp32": 4, "int64": 8, "bool": 1, "bits": 1 / 8}
EXACT = st.integers(-1000, 1000).map(lambda n: n / 8)


@pytest.fixture(scope="module")
def large():
    return memory.counts("bert-large-config")


@pytest.fixture(scope="module")
def printed():
    found = {claim.id: claim.printed for claim in claims.load("dps").claims}
    return {m: {b: found[f"dps.F.table3.{m}.batch{b}"] for b in (16, 32)} for m in memory.METHODS}


def test_bert_large_is_counted_from_its_configuration(large):
    """24 layers of 12 h^2 + 13 h weights each; tracked are their matrices, the pooler's and the two-class head's."""
    h = 1024
    assert large.encoder == 24 * (12 * h * h + 13 * h)
    assert large.tracked == 24 * 12 * h * h + h * h + 2 * h
    embeddings = (28996 + 512 + 2 + 2) * h
    assert large.all == embeddings + large.encoder + (h * h + h) + (2 * h + 2)


def test_the_shapes_tracked_add_up(large):
    shapes = memory.tracked_shapes("bert-large-config")
    assert sum(rows * columns for rows, columns in shapes) == large.tracked


def test_what_a_layer_saves_for_its_backward_pass():
    """By hand, in fp32: inputs of six products and GELU, queries, keys and values transposed, probabilities, two sums; layer norms' statistics."""
    length, h, heads, inner = 128, 1024, 16, 4096
    x, probabilities = length * h, heads * length * length
    floats = 8 * x + probabilities + 2 * length * inner + 4 * length
    assert memory.activation_bytes("bert-large-config", length) == 24 * 4 * floats


@pytest.mark.parametrize("items", [*AS_CODED.values(), *LEAN.values(), *PACKED.values(), memory.VANILLA])
def test_every_item_is_as_wide_as_its_type(items):
    for item in items:
        assert item.bytes == WIDTHS[item.dtype]


@pytest.mark.parametrize("kept", [AS_CODED, LEAN, PACKED])
def test_every_method_of_the_table_is_counted_in_its_order(kept):
    assert tuple(kept) == memory.METHODS


def test_packed_masks_are_all_that_differs_on_a_gpu():
    saved = {"child_tuning_d": 7 / 8, "dps_dense": 0, "dps_mix": 7 / 8}
    for method in memory.METHODS:
        less = memory.extra_bytes(LEAN[method], ONE) - memory.extra_bytes(PACKED[method], ONE)
        assert less == saved.get(method, 0), method
    stages = [memory.extra_bytes(PACKED["dps_dense"], ONE, moment) for moment in memory.MOMENTS]
    assert stages == [4, 1 / 8, 1 / 8]


ONE = Counts(all=1, tracked=1, encoder=1)


@pytest.mark.parametrize(
    "method, as_coded, lean",
    [("vanilla", 0, 0), ("mixout", 8, 4), ("r3f", 0, 0), ("r_dropout", 0, 0), ("child_tuning_d", 1, 1)]
    + [("dps_dense", 20, 4), ("dps_mix", 36, 9)],
)
def test_bytes_per_weight_at_the_worst_moment(method, as_coded, lean):
    assert memory.extra_bytes(AS_CODED[method], ONE) == as_coded
    assert memory.extra_bytes(LEAN[method], ONE) == lean


@pytest.mark.parametrize("method, target", [("mixout", 4), ("child_tuning_d", 1), ("dps_dense", 5), ("dps_mix", 13)])
def test_ours_keeps_no_more_than_was_aimed_at(method, target):
    assert memory.extra_bytes(LEAN[method], ONE) <= target


def test_items_count_the_weights_they_cover_while_they_live():
    items = [Item("a", "fp32", 4, (memory.STAGE_ONE,)), Item("b", "bool", 1, weights="encoder")]
    counts = Counts(all=1000, tracked=100, encoder=10)
    assert memory.extra_bytes(items, counts, memory.STAGE_ONE) == 4 * 100 + 10
    assert memory.extra_bytes(items, counts, memory.STAGE_TWO) == 10
    assert memory.worst_moment(items, counts) == memory.STAGE_ONE
    assert memory.extra_bytes(items, counts) == 410


@given(EXACT, EXACT, st.integers(1, 64), st.integers(65, 128))
def test_a_line_goes_through_its_two_points(intercept, slope, low, high):
    line = Line.through({high: intercept + slope * high, low: intercept + slope * low})
    assert line.slope == pytest.approx(slope, abs=1e-9) and line.intercept == pytest.approx(intercept, abs=1e-9)


@given(EXACT, EXACT, EXACT, EXACT)
def test_lines_need_the_same_where_they_cross(a, b, c, d):
    one, other = Line(a, b), Line(c, d)
    if b == d:
        with pytest.raises(ZeroDivisionError):
            one.crosses(other)
    else:
        batch = one.crosses(other)
        assert one.at(batch) == pytest.approx(other.at(batch), rel=1e-9, abs=1e-6)
        assert batch == pytest.approx(other.crosses(one))


def test_vanilla_is_predicted_as_printed_and_two_forwards_hold_two_graphs():
    model = ByteModel(Line(7.0, 0.25), Counts(all=0, tracked=GIB, encoder=0), two_forwards=3.0)
    predicted = model.predict({"vanilla": (), "r3f": (), "mixout": AS_CODED["mixout"]}, [16, 32])
    assert predicted["vanilla"] == {16: 11.0, 32: 15.0}
    assert predicted["r3f"] == {16: 7 + 0.25 * 48, 32: 7 + 0.25 * 96}
    assert predicted["mixout"] == {16: 19.0, 32: 23.0}


def test_a_table_made_by_the_model_is_met_by_every_variant_but_the_one_slope(large):
    """Two graphs cost more per sample than one, whatever the rest."""
    made = ByteModel(Line(6.9, 0.23), large).predict(AS_CODED, [16, 32])
    for fit in memory.fits(made, large):
        if "one slope" in fit.variant:
            assert fit.largest > 0.5
        else:
            assert fit.largest < 1e-9, fit.variant


def test_graphs_are_found_where_there_are_three(large):
    made = ByteModel(Line(6.9, 0.23), large, two_forwards=3.0).predict(AS_CODED, [16, 32])
    two, fitted, *_ = memory.fits(made, large)
    assert two.largest == pytest.approx(0.23 * 32) and two.rmse_one_graph < 1e-9
    assert "3.00 graphs" in fitted.variant and fitted.largest < 1e-9


def test_more_constants_never_fit_worse(printed, large):
    """Among least-squares fits whose columns contain the other's."""
    errors = {fit.constants: fit.rmse for fit in memory.fits(printed, large)}
    assert errors[9] < errors[8] and all(fit.rmse <= fit.largest for fit in memory.fits(printed, large))


def test_the_printed_table_leaves_what_it_leaves(printed, large):
    """Independent arithmetic: the residuals of two columns by hand, from 20 and 8 bytes a weight."""
    two, *_ = memory.fits(printed, large)
    n = 303_040_512 / 2**30
    assert two.residuals["dps_dense", 32] == pytest.approx(20.0 - 14.3 - 20 * n)
    assert two.residuals["mixout", 16] == pytest.approx(12.9 - 10.6 - 8 * n)
    assert two.residuals["r3f", 32] == pytest.approx(28.3 - (6.9 + 64 * 3.7 / 16))


def test_percent_over_vanilla():
    assert memory.percent_over_vanilla({"vanilla": {16: 10.0}, "mixout": {16: 12.5}}, "mixout", 16) == 25.0
