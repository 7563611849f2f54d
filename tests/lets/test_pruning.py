"""Delta-pruning (LeTS, Algorithm 2 repaired): the mask's gradient, scores, threshold, ties, and the printed comparator."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from paperlib.errors import InputError
from paperlib.lets import pruning

unhurried = settings(deadline=None, max_examples=15)
values = st.lists(st.floats(-4, 4).map(lambda x: round(x, 1)), min_size=1, max_size=30)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


PRETRAINED = {"a": normal(6, 4, seed=1), "b": normal(4, 6, seed=2)}
DELTA = {"a": 0.3 * normal(6, 4, seed=3), "b": 0.3 * normal(4, 6, seed=4)}
BATCH = (normal(16, 6, seed=5), torch.arange(16) % 6)


def loss_at(weights, batch=BATCH):
    x, labels = batch
    return functional.cross_entropy(torch.tanh(x @ weights["a"]) @ weights["b"], labels)


def tuned(scale=1.0):
    return {name: (weight + scale * DELTA[name]).requires_grad_() for name, weight in PRETRAINED.items()}


def scaled(scale):
    return {name: scale * each for name, each in DELTA.items()}


def flat(tensors):
    return torch.cat([each.detach().flatten() for each in tensors.values()])


# --- the mask's gradient


def test_it_is_the_derivative_in_the_mask_at_one():
    weights, c = tuned(), {name: torch.ones_like(each, requires_grad=True) for name, each in DELTA.items()}
    masked = {name: PRETRAINED[name] + c[name] * DELTA[name] for name in DELTA}
    expected = torch.autograd.grad(loss_at(masked), [*c.values()])
    found = pruning.mask_gradients(loss_at(weights), weights, DELTA)
    for name, slope in zip(c, expected, strict=True):
        torch.testing.assert_close(found[name], slope, rtol=1e-13, atol=1e-16)


def test_its_signed_sum_is_the_derivative_along_the_offsets():
    weights, t = tuned(), torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    along = loss_at({name: PRETRAINED[name] + t * DELTA[name] for name in DELTA})
    expected = torch.autograd.grad(along, t)[0].item()
    total = flat(pruning.mask_gradients(loss_at(weights), weights, DELTA)).sum().item()
    assert total == pytest.approx(expected, rel=1e-12)


def deletions(scale):
    """L(c = 1) - L(c_e = 0) for every e."""
    weights = {name: each.detach() for name, each in tuned(scale).items()}
    full, saved = loss_at(weights), []
    for name, each in weights.items():
        for e in range(each.numel()):
            without = each.clone()
            without.view(-1)[e] = PRETRAINED[name].reshape(-1)[e]
            saved.append(full - loss_at(weights | {name: without}))
    return torch.stack(saved)


def test_it_is_to_first_order_what_dropping_an_offset_saves():
    """The relative error falls in proportion to |W^d|, and |g| ranks as the true change does."""
    errors = []
    for scale in (1.0, 0.1, 0.01):
        weights = tuned(scale)
        g, truth = flat(pruning.mask_gradients(loss_at(weights), weights, scaled(scale))), deletions(scale)
        errors.append(((g - truth).norm() / truth.norm()).item())
        assert np.corrcoef(g.abs(), truth.abs())[0, 1] > 0.9
    assert errors[0] < 0.5
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.5)
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.1)


def test_offsets_are_the_differences_and_untouched_ones_score_zero():
    weights = tuned()
    with torch.no_grad():
        weights["a"][2] = PRETRAINED["a"][2]
    delta = pruning.offsets(weights, PRETRAINED)
    g = pruning.mask_gradients(loss_at(weights), weights, delta)
    torch.testing.assert_close(delta["b"], DELTA["b"], rtol=1e-12, atol=1e-15)
    assert not delta["b"].requires_grad and (g["a"][2] == 0).all() and (g["a"][[0, 1, 3, 4, 5]] != 0).all()


def test_a_weight_the_loss_does_not_see_gets_zero():
    weights = tuned() | {"unused": torch.ones(3, dtype=torch.float64, requires_grad=True)}
    g = pruning.mask_gradients(loss_at(weights), weights, DELTA | {"unused": torch.ones(3, dtype=torch.float64)})
    assert (g["unused"] == 0).all()


# --- scores


def test_scores_sum_to_one_over_all_weights():
    weights = tuned()
    g = pruning.mask_gradients(loss_at(weights), weights, DELTA)
    s = pruning.scores(g)
    assert flat(s).sum().item() == pytest.approx(1, rel=1e-14)
    torch.testing.assert_close(flat(s), flat(g).abs() / flat(g).abs().sum(), rtol=1e-14, atol=0)


@unhurried
@given(st.integers(0, 1000), st.floats(0.03, 1), st.floats(-1e6, 1e6).filter(lambda x: abs(x) > 1e-6))
def test_neither_the_norm_nor_a_factor_changes_the_mask(seed, k, factor):
    g = {"a": normal(5, 3, seed=seed), "b": normal(20, seed=seed + 1)}
    expected = pruning.masks({name: each.abs() for name, each in g.items()}, k)
    found = pruning.masks(pruning.scores({name: factor * each for name, each in g.items()}), k)
    assert torch.equal(flat(found), flat(expected))


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_scores_of_nothing_or_of_no_numbers_are_refused(bad):
    with pytest.raises(InputError, match="mask gradients sum to"):
        pruning.scores({"a": torch.full((3,), bad)})


# --- the mask


@unhurried
@given(values, values, st.floats(0.02, 1))
def test_kept_are_those_at_or_above_the_kappa_th_largest_and_not_zero(a, b, k):
    """Against sorting; the values have many ties."""
    s = {"a": torch.tensor(a, dtype=torch.float64).abs(), "b": torch.tensor(b, dtype=torch.float64).abs()}
    entries = len(a) + len(b)
    if round(k * entries) == 0:
        with pytest.raises(InputError):
            pruning.masks(s, k)
        return
    threshold = sorted(map(abs, a + b), reverse=True)[round(k * entries) - 1]
    found = pruning.masks(s, k)
    expected = [abs(each) >= threshold and abs(each) > 0 for each in a + b]
    assert flat(found).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [0.001, 0.0025, 0.005, 0.01, 0.5, 1.0])
def test_without_ties_exactly_kappa_are_kept(k, dtype):
    s = {"a": normal(100, 70).abs().to(dtype), "b": normal(3000, seed=1).abs().to(dtype)}
    assert flat(pruning.masks(s, k)).sum() == pruning.kept(k, 10_000) == round(k * 10_000)


def test_the_threshold_is_one_for_all_weights_or_one_for_each():
    s = {"small": normal(1000).abs(), "large": 1e3 + normal(1000, seed=1).abs()}
    together, each = pruning.masks(s, 0.1), pruning.masks(s, 0.1, per_matrix=True)
    assert together["small"].sum() == 0 and together["large"].sum() == 200
    assert each["small"].sum() == each["large"].sum() == 100
    assert torch.equal(each["small"], pruning.masks({"small": s["small"]}, 0.1)["small"])


def test_ties_with_the_threshold_are_all_kept_and_zeros_never():
    tied = {"a": torch.tensor([5.0, 2.0, 2.0, 2.0, 1.0])}
    assert pruning.masks(tied, 0.4)["a"].tolist() == [True, True, True, True, False]
    mostly_zero = {"a": torch.tensor([5.0, 0.0, -0.0, 0.0, 1.0])}
    assert pruning.masks(mostly_zero, 0.8)["a"].tolist() == [True, False, False, False, True]
    assert pruning.masks({"a": torch.tensor([1.0, float("nan")])}, 1.0)["a"].tolist() == [True, False]


def test_the_printed_comparator_keeps_the_complement_and_the_threshold():
    weights = tuned()
    s = pruning.scores(pruning.mask_gradients(loss_at(weights), weights, DELTA))
    assert flat(s).numel() == 48
    mask = flat(pruning.masks(s, 4 / 48))
    threshold = flat(s)[mask].min()
    assert mask.sum() == 4
    assert (flat(s) - threshold <= 0).sum() == 45


@pytest.mark.parametrize("k", [0.0, -0.1, 1.0001, float("nan"), 100])
def test_the_kept_share_must_lie_in_0_1(k):
    with pytest.raises(InputError, match=r"must lie in \(0, 1\]"):
        pruning.masks({"a": torch.ones(10)}, k)


def test_a_share_that_keeps_nothing_is_refused():
    with pytest.raises(InputError, match="keeps none of 48 offsets; give at least 0.02"):
        pruning.masks({"a": torch.ones(48)}, 0.005)


def test_of_no_offsets_none_are_kept():
    with pytest.raises(InputError, match="keeps none of 0 offsets$"):
        pruning.kept(0.5, 0)


@pytest.mark.parametrize(("per_matrix", "rankings"), [(False, 1), (True, 2)])
def test_all_weights_are_ranked_once(monkeypatch, per_matrix, rankings):
    """A ranking reads every score, so one for each weight of a large model would take as many times as long."""
    calls, ranked = [], pruning.kth_largest
    monkeypatch.setattr(pruning, "kth_largest", lambda *given: (calls.append(1), ranked(*given))[1])
    pruning.masks({name: each.abs() for name, each in DELTA.items()}, 0.2, per_matrix)
    assert len(calls) == rankings


# --- the warm-up


def walked(eta, steps=20):
    """W^d of gradient descent on batches of its own."""
    weights = {name: each.clone().requires_grad_() for name, each in PRETRAINED.items()}
    for step in range(steps):
        loss = loss_at(weights, (normal(8, 6, seed=100 + step), torch.arange(8) % 6))
        slopes = torch.autograd.grad(loss, [*weights.values()])
        with torch.no_grad():
            for weight, slope in zip(weights.values(), slopes, strict=True):
                weight -= eta * slope
    return weights, pruning.offsets(weights, PRETRAINED)


def accumulated(steps=20):
    start = {name: each.clone().requires_grad_() for name, each in PRETRAINED.items()}
    total = sum(loss_at(start, (normal(8, 6, seed=100 + step), torch.arange(8) % 6)) for step in range(steps))
    return [-slope for slope in torch.autograd.grad(total, [*start.values()])]


@pytest.mark.parametrize("eta", [1e-6, 1e-5, 1e-4, 1e-3])
def test_with_plain_descent_the_mask_is_that_of_the_accumulated_gradient_at_any_small_rate(eta):
    """W^d = -eta sum of gradients at W^p + O(eta^2): 12 of 12 kept agree."""
    start = {name: each.clone().requires_grad_() for name, each in PRETRAINED.items()}
    sums = dict(zip(PRETRAINED, accumulated(), strict=True))
    expected = pruning.masks(pruning.scores(pruning.mask_gradients(loss_at(start), start, sums)), 0.25)
    weights, delta = walked(eta)
    found = pruning.masks(pruning.scores(pruning.mask_gradients(loss_at(weights), weights, delta)), 0.25)
    assert flat(found).sum() == 12
    assert (flat(found) & flat(expected)).sum() == 12


def test_with_offsets_of_one_size_as_adam_gives_the_score_is_the_gradient_alone():
    weights = tuned()
    signs = {name: 1e-3 * each.sign() for name, each in DELTA.items()}
    s = pruning.masks(pruning.scores(pruning.mask_gradients(loss_at(weights), weights, signs)), 0.25)
    slopes = torch.autograd.grad(loss_at(weights), [*weights.values()])
    expected = pruning.masks(pruning.magnitudes(dict(zip(weights, slopes, strict=True))), 0.25)
    assert torch.equal(flat(s), flat(expected))


# --- the non-adaptive difference


def test_the_non_adaptive_difference_keeps_the_largest_offsets_whatever_the_loss_says():
    mask = flat(pruning.masks(pruning.magnitudes(DELTA), 0.25))
    largest = flat(DELTA).abs().topk(12).indices
    assert sorted(mask.nonzero()[:, 0].tolist()) == sorted(largest.tolist())
    weights = tuned()
    adaptive = flat(pruning.masks(pruning.scores(pruning.mask_gradients(loss_at(weights), weights, DELTA)), 0.25))
    assert 0 < (mask & adaptive).sum() < 12, "the scores look at more than size"


def test_dropping_by_score_changes_the_loss_less_than_dropping_by_size():
    """What is dropped in the two ways, half of the small offsets: the change of the loss, predicted by their g, is smaller by score."""
    weights = tuned(0.05)
    delta = scaled(0.05)
    full = loss_at(weights).item()
    by_score = pruning.masks(pruning.scores(pruning.mask_gradients(loss_at(weights), weights, delta)), 0.5)
    by_size = pruning.masks(pruning.magnitudes(delta), 0.5)

    def changed(mask):
        return abs(loss_at({n: PRETRAINED[n] + mask[n] * delta[n] for n in delta}).item() - full)

    assert math.isfinite(full)
    assert changed(by_score) < changed(by_size)
