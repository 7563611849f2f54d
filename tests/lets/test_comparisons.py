"""What LeTS is compared with on a whole model: freezing the bottom, full fine-tuning, and a fixed small part of the weights."""

import pytest
import torch
from torch import nn

from paperlib.errors import InputError
from paperlib.lets import comparisons
from paperlib.lets.comparisons import FixedMask, FreezeBottom
from paperlib.lets.offsets import Offset
from paperlib.training import Loop, Method


def weights_of(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def moved(model, before):
    return {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}


def trained(problem, method, told):
    before = weights_of(problem.model)
    Loop(problem, method, told).run()
    return moved(problem.model, before)


@pytest.mark.parametrize("backbone", ["tiny-bert", "tiny-roberta", "tiny-electra"])
def test_what_is_pre_trained_is_neither_head_nor_pooler(make_problem, backbone):
    model = make_problem(backbone=backbone).model
    found = comparisons.pretrained(model)
    assert all(found[name] is dict(model.named_parameters())[name] for name in found)
    rest = model.num_parameters() - sum(weight.numel() for weight in found.values())
    head = sum(w.numel() for name, w in model.named_parameters() if "classifier" in name or ".pooler." in name)
    assert rest == head > 0


# --- freezing the bottom


def test_freezing_nothing_is_full_fine_tuning(make_problem, make_settings):
    models = []
    for method in (FreezeBottom(0), Method()):
        problem = make_problem()
        Loop(problem, method, make_settings(epochs=1)).run()
        models.append(weights_of(problem.model))
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


@pytest.mark.parametrize("layers", [1, 2])
def test_what_is_frozen_stays_and_all_else_is_trained(make_problem, make_settings, layers):
    problem = make_problem()
    names = {name for name, _ in problem.model.named_parameters()}
    frozen = {
        name for name in names if ".embeddings." in name or any(f"encoder.layer.{j}." in name for j in range(layers))
    }
    assert trained(problem, FreezeBottom(layers), make_settings()) == names - frozen


@pytest.mark.parametrize("layers", [3, -1, 1.5])
def test_no_more_layers_are_frozen_than_there_are(make_problem, make_settings, layers):
    with pytest.raises(InputError, match=f"freeze_bottom: {layers} frozen layers; the model has 2"):
        Loop(make_problem(), FreezeBottom(layers), make_settings())


# --- the non-adaptive difference


def drawn(model, k=0.01, seed=0):
    """Offsets at the largest of random differences."""
    torch.manual_seed(seed)
    start = {name: weight.detach() for name, weight in comparisons.pretrained(model).items()}
    tuned = {name: weight + 1e-3 * torch.randn_like(weight) for name, weight in start.items()}
    return comparisons.largest(tuned, start, k), {name: tuned[name] - start[name] for name in start}


def test_the_largest_differences_of_all_weights_together_are_kept(make_problem):
    offsets, delta = drawn(make_problem().model)
    flat = torch.cat([each.abs().flatten() for each in delta.values()])
    kept = torch.cat([each.values.abs() for each in offsets.values()])
    assert len(kept) == round(0.01 * len(flat))
    assert torch.equal(kept.sort().values, flat.topk(len(kept)).values.sort().values)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_only_kept_entries_and_the_head_are_trained(make_problem, make_settings, decay):
    problem = make_problem()
    start, body = weights_of(problem.model), {*comparisons.pretrained(problem.model)}
    offsets, _ = drawn(problem.model)
    method = FixedMask(offsets)
    Loop(problem, method, make_settings(weight_decay=decay)).run()
    after = weights_of(problem.model)
    for name in body:
        expected = torch.zeros(start[name].numel(), dtype=torch.bool)
        expected[offsets[name].indices] = True
        changed = (after[name] != start[name]).flatten()
        assert not (changed & ~expected).any()
    assert all(not torch.equal(after[name], start[name]) for name in after.keys() - body)
    found = method.offsets()
    # Of embeddings most are of tokens that no row has.
    layers = [name for name in found if ".encoder." in name]
    kept = sum(len(found[name].values) for name in layers)
    steps = [(found[name].values - offsets[name].values).abs() for name in layers]
    assert sum((each > 1e-6).sum().item() for each in steps) > 0.5 * kept, "training changes the offsets it starts from"
    for name, offset in found.items():
        torch.testing.assert_close(start[name] + offset.dense(), after[name], rtol=0, atol=1e-6)


def test_it_starts_from_the_offsets_and_clips_what_it_trains_alone(make_problem, make_settings):
    """One step: the gradient that is clipped is that of the kept entries and of the head."""
    problem = make_problem(dropout=0.0)
    start, (offsets, _) = weights_of(problem.model), drawn(problem.model)

    class Seen(FixedMask):
        def after_clipping(self, step, optimizer):
            self.norm = torch.stack([p.grad.norm() for p in self.model.parameters() if p.grad is not None]).norm()

        def attach(self, model, total_steps):
            super().attach(model, total_steps)
            self.model, self.first = model, weights_of(model)

    method = Seen(offsets)
    Loop(problem, method, make_settings(steps=1, clip_norm=1e-3)).run()
    assert method.norm == pytest.approx(1e-3, rel=1e-3)
    for name, offset in offsets.items():
        assert torch.equal(
            method.first[name], start[name].flatten().index_add(0, offset.indices, offset.values).view_as(start[name])
        )


def test_a_resumed_run_goes_on_exactly(make_problem, make_settings, tmp_path):
    found = []
    for stop in (False, True):
        problem = make_problem()
        offsets, _ = drawn(problem.model)
        told = make_settings(checkpoint_seconds=0.0)
        loop = Loop(problem, FixedMask(offsets), told, tmp_path / str(stop))
        if stop:
            for batches in loop._remaining_of_epoch()[:2]:
                loop.step(batches)
            loop._save()
            problem = make_problem()
            loop = Loop(problem, FixedMask(offsets), told, tmp_path / str(stop))
        loop.run()
        found.append(weights_of(problem.model))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_offsets_of_weights_that_are_not_there_are_refused(make_problem, make_settings):
    offset = Offset(torch.ones(1), torch.zeros(1, dtype=torch.int32), torch.Size([4]))
    with pytest.raises(InputError, match="no pre-trained weight 'classifier.weight'"):
        Loop(make_problem(), FixedMask({"classifier.weight": offset}), make_settings())


@pytest.mark.parametrize("k", [0.0, 1.1])
def test_the_kept_share_lies_in_0_1(k):
    layer = {"w": nn.Linear(3, 3).weight.detach()}
    with pytest.raises(InputError, match=r"must lie in \(0, 1\]"):
        comparisons.largest_of(layer, k)
