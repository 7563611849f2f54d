"""What each method keeps, byte by byte: counted over every step of whole cycles."""

import pytest
import torch

from paperlib.dps.methods import Choice, build
from paperlib.dps.scope import tracked
from paperlib.training import Loop


def tensors_of(value):
    """Every tensor within a method, whatever it is wrapped in."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from tensors_of(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_of(each)


def held(method, model):
    """Bytes of all tensors a method holds beside the model's own."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors_of(vars(method))}
    return sum(size for pointer, size in storages.items() if pointer not in own)


def peak(make_problem, make_settings, choice):
    """Most bytes held at any moment of six steps with stages of one step, per tracked weight."""
    problem, method, found = make_problem(train=12), build(choice), []

    class Watched(type(method)):
        def loss(self, problem, batch):
            found.append(held(self, problem.model))
            return super().loss(problem, batch)

        def after_step(self, step, optimizer):
            found.append(held(self, problem.model))
            super().after_step(step, optimizer)

    method.__class__ = Watched
    Loop(problem, method, make_settings()).run()
    return max(found) / sum(weight.numel() for weight in tracked(problem.model).values())


# Small change beside a full matrix, less so on a tiny model: frequency counts, one integer per input column; CHILD-TUNING's scope, which has
# biases and norms in it and no head.
SMALL = 0.35


@pytest.mark.parametrize(
    "method, lean, published",
    [("vanilla", 0, 0), ("dps_dense", 4, 20), ("dps_mix", 9, 36), ("mixout", 4, 4), ("child_tuning_d", 1, 1)],
)
def test_bytes_per_tracked_weight(make_problem, make_settings, method, lean, published):
    """Targets: DPS Dense 5, DPS Mix 13, Mixout 4, CHILD-TUNING_D 1. Mixout's published mask lives on the graph, not in the method."""
    ours = peak(make_problem, make_settings, Choice(method, p=0.3, update_ratio=0.2))
    theirs = peak(make_problem, make_settings, Choice(method, p=0.3, update_ratio=0.2, reference_dtypes=True))
    assert lean - 0.05 <= ours <= lean + SMALL
    assert published - 0.05 <= theirs <= published + SMALL


def test_frozen_weights_need_no_snapshot(make_problem, make_settings):
    """Preset paper: W0 and GAM in stage I, W0 and the mask in stage II."""
    found = peak(make_problem, make_settings, Choice("dps_mix", preset="paper", p=0.3, update_ratio=0.2))
    assert 8 <= found <= 8 + SMALL


@pytest.mark.parametrize("method", ["r3f", "r_dropout", "child_tuning_f", "re_init"])
def test_the_others_keep_nothing(make_problem, make_settings, method):
    assert peak(make_problem, make_settings, Choice(method, p=0.5)) == 0
