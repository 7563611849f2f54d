"""Methods by name: what the published code and the paper's text each make of p."""

import pytest

from paperlib.dps import methods
from paperlib.dps.dense import DPSDense
from paperlib.errors import InputError
from paperlib.training import Method


def test_vanilla_is_the_plain_method():
    assert type(methods.method("vanilla", "reference", 0.3, 0.05)) is Method


@pytest.mark.parametrize("preset, kept, policy", [("reference", 0.7, "grad_zero"), ("paper", 0.3, "freeze")])
def test_p_is_dropped_by_the_code_and_reserved_by_the_text(preset, kept, policy):
    method = methods.method("dps_dense", preset, 0.3, 0.05)
    assert type(method) is DPSDense
    assert (method.keep_fraction, method.masked_policy, method.update_ratio) == (pytest.approx(kept), policy, 0.05)


def test_nothing_dropped_is_plain_fine_tuning_and_nothing_reserved_is_refused():
    assert methods.method("dps_dense", "reference", 0.0, 0.05).keep_fraction == 1
    with pytest.raises(InputError, match="keep_fraction must lie in"):
        methods.method("dps_dense", "paper", 0.0, 0.05)


@pytest.mark.parametrize("name", ["vanilla", "dps_dense"])
def test_unknown_presets_are_named(name):
    with pytest.raises(InputError, match="unknown preset 'text'; known: reference, paper"):
        methods.method(name, "text", 0.3, 0.05)


def test_unknown_methods_are_named():
    with pytest.raises(InputError, match="unknown method 'dps'; known: vanilla, dps_dense"):
        methods.method("dps", "paper", 0.3, 0.05)


@pytest.mark.parametrize(
    "name, preset, steps, silenced",
    [
        ("dps_dense", "reference", 1999, True),
        ("dps_dense", "reference", 2000, False),
        ("dps_dense", "paper", 1999, False),
        ("vanilla", "reference", 1999, False),
        ("vanilla", "paper", 1999, False),
    ],
)
def test_the_code_silences_dropout_below_two_thousand_steps(name, preset, steps, silenced):
    assert methods.dropout(name, preset, steps) == (0 if silenced else -1)
