"""Pictures of architectures, and how far two agree."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlib.errors import InputError
from paperlib.lets import choices
from paperlib.lets.architecture import Architecture, Own

L = 4
architectures = st.lists(st.builds(Own, st.booleans(), st.booleans(), st.booleans()), min_size=L, max_size=L).map(
    lambda rows: Architecture(tuple(rows))
)


@given(own=architectures)
def test_an_input_is_idle_where_the_attention_that_would_read_it_is_shared(own):
    for row, (s1, s2, s3) in zip(choices.states(own).tolist(), own.layers, strict=True):
        assert row[0] == (choices.SHARES if not s1 else choices.OWNS if s2 else choices.IDLE)
        assert row[1:] == [choices.OWNS if each else choices.SHARES for each in (s2, s3)]


def test_layers_are_from_bottom_to_top():
    states = choices.states(Architecture.freeze_bottom(L, 3))
    assert states.shape == (L, 3) and (states[:3] == choices.SHARES).all() and (states[3] == choices.OWNS).all()


def test_a_picture_has_a_cell_for_every_selector():
    fig, ax = plt.subplots()
    own = Architecture((Own(True, False, True), Own(True, True, False), Own(False, True, True)))
    choices.draw(ax, own, ["white", "grey", "black"])
    (cells,) = ax.collections
    assert cells.get_array().reshape(3, 3).tolist() == choices.states(own).tolist()
    assert ax.get_ylim() == (0.5, 3.5), "the bottom layer, number 1, is below"
    plt.close(fig)


@given(one=architectures, other=architectures)
def test_agreement_counts_selectors(one, other):
    same = sum(a == b for x, y in zip(one.layers, other.layers, strict=True) for a, b in zip(x, y, strict=True))
    assert choices.agreement(one, other) == choices.agreement(other, one) == same / (3 * L)


@given(one=architectures, other=architectures)
def test_chance_is_the_mean_over_all_places_of_the_layers(one, other):
    """Shuffling one of the two is enough; over all cyclic shifts every layer meets every other equally often."""
    shifted = [np.roll(np.array(other.layers), shift, axis=0).tolist() for shift in range(L)]
    mean = np.mean([choices.agreement(one, Architecture(tuple(map(tuple, rows)))) for rows in shifted])
    assert choices.by_chance(one, other) == pytest.approx(mean)


def test_extremes_agree_by_chance_as_they_do():
    own, share = Architecture.all_own(L), Architecture.all_share(L)
    assert choices.by_chance(own, own) == choices.agreement(own, own) == 1
    assert choices.by_chance(own, share) == choices.agreement(own, share) == 0


@pytest.mark.parametrize("measure", [choices.agreement, choices.by_chance])
def test_depths_must_agree(measure):
    with pytest.raises(InputError, match="architectures of 4 and 3 layers"):
        measure(Architecture.all_own(4), Architecture.all_own(3))


def test_pairs_are_of_one_task_or_of_two():
    own, share = Architecture.all_own(L), Architecture.all_share(L)
    found = {("rte", 0): own, ("stsb", 0): share, ("rte", 1): own, ("rte", 2): share}
    pairs = choices.agreements(found)
    assert [*pairs] == ["rte", choices.ANOTHER], "a single search has no pair"
    assert sorted(pairs["rte"]) == [(0, 0), (0, 0), (1, 1)]
    assert sorted(pairs[choices.ANOTHER]) == [(0, 0), (0, 0), (1, 1)]
    assert choices.agreements({}) == {}
