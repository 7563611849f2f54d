"""Autograd through eqs. 27 and 28 as printed (S3Delta, appendix C.2) agrees with the forms by hand, and would notice a wrong one."""

import numpy as np
import pytest

from paperlib.s3delta import printed_gradient, shifted_sigmoid

SIZES = np.array([3, 5, 2, 7, 5, 11, 2, 4])


def case(seed=0, tau=1.0):
    return printed_gradient.Case.random(SIZES, 9.0, tau, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tau", [1.0, 0.3, 0.1])
def test_every_equation_holds_to_rounding(seed, tau):
    found = printed_gradient.errors(case(seed, tau))
    assert found.keys() == {*printed_gradient.EQUATIONS, "extra"}
    extra, searched = found.pop("extra"), found.pop("search")
    saturated = shifted_sigmoid.probabilities(case(seed, tau).alpha, SIZES, 9.0, tau).max()
    assert searched < 1e-14 / (1 - saturated), "the log-odds form divides by 1 - p, which p near 1 has rounded"
    assert max(found.values()) < 1e-12 < 1e-6 < extra


@pytest.mark.parametrize(
    ("form", "wrong", "noticed"),
    [
        ("adjustment", lambda g, p: (p @ g) / p.sum(), {"33", "34", "search"}),
        ("adjustment", lambda g, p: -g.mean(), {"33", "34", "search"}),
        ("factor_slope", lambda p: -1 / p, {"30", "31", "32"}),
        ("local_gradient", lambda g, p, tau=1.0: g * p / tau, {"29"}),
        (
            "probabilities",
            lambda alpha, sizes, budget, tau: np.full(len(alpha), 0.2),
            {"27", "29", "30", "31", "32", "33"},
        ),
    ],
)
def test_a_wrong_form_is_noticed_where_it_is_used(monkeypatch, form, wrong, noticed):
    monkeypatch.setattr(shifted_sigmoid, form, wrong)
    found = printed_gradient.errors(case())
    assert noticed <= {name for name, error in found.items() if error > 1e-6}


def test_a_case_repeats_with_its_generator():
    assert (case(1).alpha == case(1).alpha).all() and (case(1).mixing != case(2).mixing).any()
