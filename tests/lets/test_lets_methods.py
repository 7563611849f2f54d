"""The methods LeTS is compared with, by name, from the first step to kept offsets."""

from types import SimpleNamespace

import pytest
import torch

from paperlib.errors import InputError
from paperlib.lets import methods
from paperlib.lets.adapters import Adapters
from paperlib.lets.comparisons import Difference, FreezeBottom, pretrained
from paperlib.lets.diff_pruning import DiffPruning
from paperlib.lets.methods import METHODS, Choice, train
from paperlib.training import Loop, Method


def test_every_name_is_a_method_with_the_values_given():
    given = {"frozen_layers": 3, "bottleneck": 7, "penalty": 1e-3}
    built = {name: Choice(name, **given).build() for name in METHODS}
    assert [type(each) for each in built.values()] == [
        Method,
        FreezeBottom,
        Adapters,
        Difference,
        DiffPruning,
        DiffPruning,
    ]
    assert built["freeze_bottom"].layers == 3 and built["adapters"].bottleneck == 7
    assert built["diff_pruning"].penalty == 1e-3
    assert [built[name].structured for name in METHODS[4:]] == [False, True]


def test_a_choice_is_made_from_a_run_s_parameters():
    assert Choice.of(SimpleNamespace(method="adapters", bottleneck=8, seed=1)) == Choice("adapters", bottleneck=8)


def test_unknown_methods_are_refused():
    with pytest.raises(InputError, match="unknown method 'lora'; known: full, freeze_bottom, adapters"):
        Choice("lora")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_to_the_end(make_problem, make_settings, name):
    told = make_settings(steps=3)
    choice = Choice(name, frozen_layers=1, bottleneck=4)
    outcome, kept = train(make_problem, choice, told, told)
    assert len(outcome.losses) == 3 and all(0 < loss < 10 for loss in outcome.losses)
    entries = sum(weight.numel() for weight in pretrained(make_problem().model).values())
    assert sum(len(each.values) for each in kept.values()) == (round(0.005 * entries) if name in methods.MASKED else 0)


def test_full_fine_tuning_is_the_plain_loop(make_problem, make_settings):
    told, problem = make_settings(), make_problem()
    outcome, _ = train(make_problem, Choice("full"), told, told)
    assert outcome.losses == Loop(problem, Method(), told).run().losses


def test_the_non_adaptive_difference_is_of_the_weights_that_fine_tuning_ends_with(make_problem, make_settings):
    told, problem = make_settings(), make_problem()
    start = {name: weight.detach().clone() for name, weight in pretrained(problem.model).items()}
    method = Difference()
    Loop(problem, method, told).run()
    delta = {name: weight.detach() - start[name] for name, weight in pretrained(problem.model).items()}
    kept = method.offsets(0.01)
    flat = torch.cat([each.abs().flatten() for each in delta.values()])
    threshold = flat.topk(round(0.01 * len(flat))).values.min()
    for name, offset in kept.items():
        assert torch.equal(offset.dense(), torch.where(delta[name].abs() >= threshold, delta[name], 0.0))


def test_the_mask_is_found_without_a_look_at_test_rows(make_problem, make_settings, tmp_path):
    told, seen = make_settings(steps=2), []

    def make():
        problem = make_problem(validation=4)
        batch = type(problem).batch

        class Watching(type(problem)):
            def batch(self, rows, indices):
                seen.append(rows)
                return batch(self, rows, indices)

        problem.__class__ = Watching
        return problem

    methods._found(make, Choice("non_adaptive"), told, tmp_path)
    assert {len(rows) for rows in seen} == {10}, "training rows alone, of 10 and 4 and 6"


@pytest.mark.parametrize("name", ["non_adaptive", "diff_pruning"])
def test_a_mask_that_was_found_is_taken_again(make_problem, make_settings, tmp_path, name):
    told, choice = make_settings(steps=2), Choice(name)
    first, kept = train(make_problem, choice, told, told, tmp_path)
    (tmp_path / "checkpoint.safetensors").unlink(missing_ok=True)
    again, kept_again = train(make_problem, choice, told, make_settings(steps=0, epochs=0), tmp_path)
    assert first.losses == again.losses
    assert all(torch.equal(kept[weight].values, kept_again[weight].values) for weight in kept)
