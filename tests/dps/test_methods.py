"""Methods by name: what the published code and the papers' texts each make of the parameters."""

from types import SimpleNamespace

import pytest
import torch

from paperlib.dps import names
from paperlib.dps.child_tuning import ChildTuningD, ChildTuningF
from paperlib.dps.dense import DPSDense
from paperlib.dps.methods import METHODS, PRESETS, Choice, build, dropout
from paperlib.dps.mix import DPSMix
from paperlib.dps.mixout import Mixout
from paperlib.dps.r3f import R3F
from paperlib.dps.r_dropout import RDropout
from paperlib.dps.re_init import ReInit
from paperlib.errors import InputError
from paperlib.parameters import runs
from paperlib.training import Method, Together


def test_a_choice_is_read_from_a_runs_parameters():
    """Values that a run does not have keep their defaults."""
    given = SimpleNamespace(method="dps_mix", preset="paper", p=0.4, seed=3, selection="global")
    assert Choice.of(given) == Choice("dps_mix", preset="paper", p=0.4, selection="global")


def test_the_names_are_the_ones_that_runs_accept_and_tables_print():
    assert set(METHODS) == set(runs.METHODS) == set(names.TITLES)


# --- what is built


GIVEN = {"p": 0.3, "update_ratio": 0.2, "noise": "normal", "sigma": 0.01, "strength": 0.7, "reinit_layers": 2}
DPS = {"update_ratio": 0.2, "selection": "matrix", "reference_dtypes": False}
CODE = DPS | {"keep_fraction": 1 - 0.3, "masked_policy": "grad_zero"}
TEXT = DPS | {"keep_fraction": 0.3, "masked_policy": "freeze"}
BUILT = {
    ("vanilla", "reference"): (Method, {}),
    ("vanilla", "paper"): (Method, {}),
    ("mixout", "reference"): (Mixout, {"p": 0.3, "true_gradient": False, "reference_dtypes": False}),
    ("mixout", "paper"): (Mixout, {"p": 0.3, "true_gradient": True, "reference_dtypes": False}),
    ("r3f", "reference"): (R3F, {"noise": "normal", "sigma": 0.01, "strength": 0.7}),
    ("r3f", "paper"): (R3F, {"noise": "normal", "sigma": 0.01, "strength": 0.7}),
    ("r_dropout", "reference"): (RDropout, {"strength": 0.7, "kl_reduction": "batch_sum"}),
    ("r_dropout", "paper"): (RDropout, {"strength": 0.7, "kl_reduction": "batch_mean"}),
    ("re_init", "reference"): (ReInit, {"layers": 2}),
    ("re_init", "paper"): (ReInit, {"layers": 2}),
    ("child_tuning_d", "reference"): (ChildTuningD, {"p": 0.3}),
    ("child_tuning_d", "paper"): (ChildTuningD, {"p": 0.3}),
    ("child_tuning_f", "reference"): (ChildTuningF, {"p": 0.3}),
    ("child_tuning_f", "paper"): (ChildTuningF, {"p": 0.3}),
    ("dps_dense", "reference"): (DPSDense, CODE),
    ("dps_dense", "paper"): (DPSDense, TEXT),
    ("dps_mix", "reference"): (DPSMix, CODE | {"penalty_from": 50, "rescale": True}),
    ("dps_mix", "paper"): (DPSMix, TEXT | {"penalty_from": 1, "rescale": False}),
}


def plain(method):
    """The values a method was given: of its attributes those that are neither tensors nor stores of them."""
    return {name: value for name, value in vars(method).items() if isinstance(value, bool | int | float | str)}


@pytest.mark.parametrize("name, preset", BUILT)
def test_each_name_and_preset_is_a_class_and_its_values(name, preset):
    method = build(Choice(name, preset=preset, **GIVEN))
    assert (type(method), plain(method)) == BUILT[name, preset]


def test_the_table_above_is_complete():
    assert BUILT.keys() == {(name, preset) for name in METHODS for preset in PRESETS}


@pytest.mark.parametrize("name", ["mixout", "dps_dense", "dps_mix"])
def test_the_published_types_and_one_selection_for_all_are_passed_on(name):
    wide = build(Choice(name, reference_dtypes=True, selection="global"))
    assert wide.reference_dtypes
    assert name == "mixout" or wide.selection == "global"


def test_nothing_dropped_is_plain_fine_tuning_and_nothing_reserved_is_refused():
    assert build(Choice("dps_dense", p=0.0)).keep_fraction == 1
    with pytest.raises(InputError, match=r"the kept share must lie in \(0, 1\], got 0"):
        build(Choice("dps_dense", "paper", p=0.0))


@pytest.mark.parametrize(
    "choice, message",
    [
        (Choice("mixout", p=1.0), r"mixout's p must lie in \[0, 1\), got 1"),
        (Choice("r3f", noise="laplace"), "unknown noise 'laplace'; known: normal, uniform"),
        (Choice("r3f", sigma=-1.0), "sigma must be a number from 0 up, got -1"),
        (Choice("r_dropout", strength=float("nan")), "strength must be a number from 0 up, got nan"),
        (Choice("child_tuning_d", p=0.0), r"p, the share of entries trained, must lie in \(0, 1\], got 0"),
        (Choice("child_tuning_f", p=1.5), r"p, the share of entries trained, must lie in \(0, 1\], got 1.5"),
        (Choice("dps_mix", p=1.0), r"the kept share must lie in \(0, 1\], got 0"),
        (Choice("r_dropout+dps_mix", p=1.0), r"the kept share must lie in \(0, 1\], got 0"),
    ],
)
def test_values_outside_their_range_are_refused(choice, message):
    with pytest.raises(InputError, match=message):
        build(choice)


@pytest.mark.parametrize("name", METHODS)
def test_unknown_presets_are_named(name):
    with pytest.raises(InputError, match="unknown preset 'text'; known: reference, paper"):
        build(Choice(name, preset="text"))


@pytest.mark.parametrize("name, part", [("dps", "dps"), ("", ""), ("r3f+", ""), ("dps_mix+r_drop", "r_drop")])
def test_unknown_methods_are_named(name, part):
    with pytest.raises(InputError, match=f"unknown method '{part}'; known: vanilla, re_init, .*, dps_mix"):
        build(Choice(name))


# --- several at once


@pytest.mark.parametrize(
    "written", ["dps_mix+r_dropout+re_init", "re_init+dps_mix+r_dropout", "r_dropout+re_init+dps_mix"]
)
def test_joined_methods_start_then_judge_then_look_after_weights(written):
    """Whatever the order written: what DPS Mix and Mixout return to is what Re-init has drawn."""
    together = build(Choice(written))
    assert type(together) is Together
    assert [type(each) for each in together.methods] == [ReInit, RDropout, DPSMix]


@pytest.mark.parametrize("written", ["mixout+re_init", "dps_mix+re_init"])
def test_the_start_that_weights_are_mixed_with_is_the_one_drawn(make_problem, written):
    model = make_problem().model
    loaded = model.bert.encoder.layer[1].output.dense.weight.detach().clone()
    together = build(Choice(written, update_ratio=0.5))
    together.attach(model, 6)
    name = "bert.encoder.layer.1.output.dense.weight"
    assert torch.equal(together.methods[1].start[name], model.get_parameter(name))
    assert not torch.equal(together.methods[1].start[name], loaded)


# --- dropout


@pytest.mark.parametrize(
    "name, steps, silenced",
    [
        ("vanilla", 1999, False),
        ("r3f", 1999, False),
        ("r_dropout", 1999, False),
        ("re_init", 1999, False),
        ("child_tuning_d", 1999, False),
        ("child_tuning_f", 1999, False),
        ("mixout", 1999, True),
        ("mixout", 2000, True),
        ("dps_mix", 1999, True),
        ("dps_mix", 2000, True),
        ("dps_dense", 1999, True),
        ("dps_dense", 2000, False),
        ("re_init+mixout", 2000, True),
        ("dps_dense+r3f", 1999, True),
        ("dps_dense+r3f", 2000, False),
        ("r_dropout+dps_mix", 1999, False),
        ("dps_dense+r_dropout", 1999, False),
    ],
)
def test_the_code_silences_dropout_of_some(name, steps, silenced):
    """DPS Dense below two thousand steps, DPS Mix and Mixout always; none that R-Drop compares two passes of."""
    assert dropout(Choice(name), steps) == (0 if silenced else -1)
    assert dropout(Choice(name, preset="paper"), steps) == -1
