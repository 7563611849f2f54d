"""LeTS and the methods it is compared with, by name, from the first step to kept offsets."""

from types import SimpleNamespace

import pytest
import torch

from paperlib.errors import InputError
from paperlib.lets import methods
from paperlib.lets.adapters import Adapters
from paperlib.lets.architecture import Architecture, Own
from paperlib.lets.comparisons import Difference, FreezeBottom, pretrained
from paperlib.lets.diff_pruning import DiffPruning
from paperlib.lets.masked_tuning import WarmUp
from paperlib.lets.methods import COMPARISONS, Comparison
from paperlib.lets.readout import ReadoutSizes
from paperlib.lets.sub_task import SubTask
from paperlib.training import Loop, Method


def test_every_name_is_a_method_with_the_values_given():
    given = {"frozen_layers": 3, "bottleneck": 7, "penalty": 1e-3}
    built = {name: Comparison(name, **given).build() for name in COMPARISONS}
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
    assert [built[name].structured for name in COMPARISONS[4:]] == [False, True]


def test_unknown_methods_are_refused():
    with pytest.raises(InputError, match="unknown method 'lora'; known: full, freeze_bottom, adapters"):
        Comparison("lora")


def asked(**values) -> SimpleNamespace:
    usual = {
        **{"method": "lets", "architecture": "freeze_bottom", "frozen_layers": 1, "bottleneck": 4, "k": 0.01},
        **{"penalty": 1e-3, "per_matrix": True, "start": "warm", "mask_steps": 3, "mask_learning_rate": 1e-3},
        **{
            "mask_optimizer": "sgd",
            "aggregation": 2,
            "lstm": 3,
            "bias_learning_rate": 0.1,
            "finding_learning_rate": 1e-4,
        },
        **{"batch_size": 4, "clip_norm": 2.0, "seed": 5, "precision": "fp32"},
    }
    return SimpleNamespace(**usual | values)


def test_a_comparison_is_made_from_a_run_s_parameters():
    wanted = Comparison("adapters", frozen_layers=1, bottleneck=4, k=0.01, penalty=1e-3, finding_learning_rate=1e-4)
    assert methods.of(asked(method="adapters"), layers=2) == wanted


def test_a_sub_task_is_made_from_a_run_s_parameters():
    wanted = SubTask(
        Architecture.freeze_bottom(2, 1),
        k=0.01,
        warm_up=WarmUp(3, 4, 1e-3, "sgd", 2.0, 5, "fp32"),
        bias_learning_rate=0.1,
        sizes=ReadoutSizes(2, 3),
        start="warm",
        per_matrix=True,
    )
    assert methods.of(asked(), layers=2) == wanted


def test_the_architecture_is_the_one_named_or_the_one_found():
    found = Architecture((Own(False, True, False), Own(True, True, True)))
    named = {
        name: methods.of(asked(architecture=name), 2, [found]).architecture
        for name in ("all_own", "all_share", "searched")
    }
    assert named == {
        "all_own": Architecture.all_own(2),
        "all_share": Architecture.all_share(2),
        "searched": found,
    }


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_method_trains_to_the_end(make_problem, make_settings, name):
    trained = Comparison(name, frozen_layers=1, bottleneck=4).train(make_problem(), make_settings(steps=3))
    losses = trained.outcome.losses
    assert len(losses) == 3 and all(0 < loss < 10 for loss in losses)
    assert (trained.mask_seconds > 0) == (name in methods.MASKED)


def test_what_is_stored_beside_the_backbone(make_problem, make_settings):
    told, body = make_settings(steps=3), pretrained(make_problem().model)
    whole = sum(weight.numel() for weight in body.values())
    all_of = sum(weight.numel() for weight in make_problem().model.parameters())
    sizes = {
        name: Comparison(name, frozen_layers=2, bottleneck=4).train(make_problem(), told).sizes for name in COMPARISONS
    }
    body_of = {name: sum(each[part] for part in ("offsets", "biases", "norms")) for name, each in sizes.items()}
    hidden, layers = make_problem().model.config.hidden_size, 2
    adapters = layers * 2 * (2 * hidden * 4 + hidden + 4)
    norms = (2 * layers + 1) * 2 * hidden
    kept = round(0.005 * whole)
    wanted = {"full": whole, "freeze_bottom": 0, "adapters": adapters + norms} | dict.fromkeys(methods.MASKED, kept)
    assert body_of == wanted
    assert {each["readout"] for each in sizes.values()} == {all_of - whole}
    for name, each in sizes.items():
        places = 4 * kept if name in methods.MASKED else 0
        assert each["bytes"] == 4 * (body_of[name] + each["readout"]) + places


def test_where_a_comparison_lies_in_the_space(make_problem, make_settings):
    told = make_settings(steps=1)
    lies = {name: Comparison(name, frozen_layers=1).train(make_problem(), told).architecture for name in COMPARISONS}
    wanted = dict.fromkeys(COMPARISONS, Architecture.all_own(2))
    assert lies == wanted | {"freeze_bottom": Architecture.freeze_bottom(2, 1), "adapters": None}


def test_full_fine_tuning_is_the_plain_loop(make_problem, make_settings):
    told, problem = make_settings(), make_problem()
    outcome = Comparison("full").train(make_problem(), told).outcome
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
    problem, seen = make_problem(validation=4), []
    batch = type(problem).batch

    class Watching(type(problem)):
        def batch(self, rows, indices):
            seen.append(rows)
            return batch(self, rows, indices)

    problem.__class__ = Watching
    Comparison("non_adaptive")._found(problem, make_settings(steps=2), tmp_path)
    assert {len(rows) for rows in seen} == {10}, "training rows alone, of 10 and 4 and 6"


@pytest.mark.parametrize("name", ["non_adaptive", "diff_pruning"])
def test_a_mask_that_was_found_is_taken_again(make_problem, make_settings, tmp_path, name):
    told = make_settings(steps=2)
    first = Comparison(name).train(make_problem(), told, tmp_path)
    (tmp_path / "checkpoint.safetensors").unlink(missing_ok=True)
    again = Comparison(name, finding_learning_rate=0.5).train(make_problem(), told, tmp_path)
    assert first.outcome.losses == again.outcome.losses
