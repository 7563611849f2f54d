"""DiffPruning, a comparison of LeTS: hard-concrete masks against their closed forms, gradients by hand, and training with them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paperlib import backbones
from paperlib.errors import InputError
from paperlib.lets import comparisons, diff_pruning
from paperlib.lets.diff_pruning import DiffPruning
from paperlib.training import Loop, Method, Settings
from paperlib.training.random_rows import RandomRows

DRAWS = 200_000
alphas = st.floats(-8, 8)
bounds = st.tuples(st.floats(-3, -0.05), st.floats(1.05, 3))


def draws(alpha, *limits, seed=0):
    u = torch.rand(DRAWS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return diff_pruning.sample(torch.full_like(u, alpha), u, *limits)


# --- one z


@pytest.mark.parametrize("alpha", [-2.0, 0.0, 0.7, 3.0])
@pytest.mark.parametrize("limits", [(-1.5, 1.5), (-0.1, 1.1)])
def test_shares_of_draws_are_the_closed_forms(alpha, limits):
    """Three standard errors, and what the holding of u may cost."""
    z = draws(alpha, *limits)
    shares = {
        diff_pruning.nonzero(alpha, *limits): (z > 0),
        diff_pruning.whole(alpha, *limits): (z == 1),
        diff_pruning.cdf(0.0, alpha, *limits): (z == 0),
        diff_pruning.cdf(0.3, alpha, *limits): (z <= 0.3),
        diff_pruning.cdf(0.9, alpha, *limits): (z <= 0.9),
    }
    for p, found in shares.items():
        error = math.sqrt(p * (1 - p) / DRAWS)
        assert abs(found.double().mean().item() - p) < 3 * error + diff_pruning.HELD


@given(alphas, bounds)
def test_a_z_is_zero_or_not(alpha, limits):
    assert diff_pruning.cdf(0.0, alpha, *limits) + diff_pruning.nonzero(alpha, *limits) == pytest.approx(1, abs=1e-12)
    assert diff_pruning.whole(alpha, *limits) <= diff_pruning.nonzero(alpha, *limits)
    t = np.linspace(0, 0.999, 20)
    assert (np.diff(diff_pruning.cdf(t, alpha, *limits)) >= 0).all()
    nearly = diff_pruning.cdf(1 - 1e-12, alpha, *limits)
    assert 1 - nearly == pytest.approx(diff_pruning.whole(alpha, *limits), abs=1e-9)


def test_with_the_published_bounds_the_penalty_is_the_sigmoid_of_alpha():
    assert diff_pruning.log_ratio() == 0
    assert diff_pruning.nonzero(5.0) == pytest.approx(1 / (1 + math.exp(-5)))
    assert round(float(diff_pruning.nonzero(5.0)), 4) == 0.9933, "nearly all entries differ at first"


def test_z_of_one_half_is_the_median():
    z = draws(0.4)
    assert diff_pruning.fixed(torch.tensor(0.4, dtype=torch.float64)) == pytest.approx(z.median().item(), abs=0.01)


def test_gradients_are_right_inside_and_zero_where_z_is_cut():
    u = torch.tensor([0.05, 0.45, 0.5, 0.6, 0.95], dtype=torch.float64)
    alpha = torch.tensor([-1.0, 0.3, 0.5, 0.4, 2.0], dtype=torch.float64, requires_grad=True)
    z = diff_pruning.sample(alpha, u)
    assert z[0] == 0 and z[-1] == 1 and ((0 < z) & (z < 1)).sum() == 3
    z.sum().backward()
    s = torch.sigmoid(torch.logit(u) + alpha.detach())
    expected = torch.where((z > 0) & (z < 1), 3 * s * (1 - s), 0.0)
    torch.testing.assert_close(alpha.grad, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("limits", [(-1.5, 1.5), (-0.1, 1.1)])
def test_the_slope_is_that_of_plain_operations(limits):
    torch.manual_seed(0)
    u, upstream = torch.rand(1000, dtype=torch.float64), torch.randn(1000, dtype=torch.float64)
    slopes = []
    for function in (
        diff_pruning.sample,
        lambda alpha, u, *limits: diff_pruning.stretched(torch.sigmoid(torch.logit(u) + alpha), *limits),
    ):
        alpha = torch.linspace(-3, 3, 1000, dtype=torch.float64).requires_grad_()
        function(alpha, u.clamp(1e-4, 1 - 1e-4), *limits).backward(upstream)
        slopes.append(alpha.grad)
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-13)


def test_draws_at_the_ends_are_held():
    z = diff_pruning.sample(torch.zeros(2), torch.tensor([0.0, 1.0]))
    assert z.tolist() == [0, 1]


# --- the method


def attached(problem, told, **options):
    method = DiffPruning(**options)
    loop = Loop(problem, method, told)
    return loop, method


def weights_of(model):
    return {name: weight.detach().clone() for name, weight in comparisons.pretrained(model).items()}


def test_before_training_it_is_the_pre_trained_model(make_problem, make_settings):
    plain, problem = make_problem(dropout=0.0), make_problem(dropout=0.0)
    expected = plain.scores(plain.test, 4)
    attached(problem, make_settings())
    np.testing.assert_array_equal(problem.scores(problem.test, 4), expected)


def test_embeddings_biases_and_norms_take_part_and_the_head_does_not(make_problem, make_settings):
    problem = make_problem()
    names = {*comparisons.pretrained(problem.model)}
    _, method = attached(problem, make_settings())
    assert method.parts.keys() == names
    trained = {name for name, _ in problem.model.named_parameters()}
    originals = {f"{n.rpartition('.')[0]}.parametrizations.{n.rpartition('.')[2]}.original" for n in names}
    assert trained - originals == {name for name in trained if "classifier" in name or ".pooler." in name}
    assert method.expected() == pytest.approx(diff_pruning.nonzero(5.0) * sum(w.numel() for w in method.w.values()))


def test_gradients_of_w_and_alpha_are_those_of_the_definition(make_problem, make_settings):
    """dL/dw = z dL/dW; dL/dalpha = (w dL/dW dz/dalpha) and the penalty's slope; in float64 with one draw."""
    problem = make_problem(dropout=0.0)
    problem.model.double()
    _, method = attached(problem, make_settings(), penalty=1e-2, start=0.4)
    name = "bert.encoder.layer.0.output.dense.weight"
    part, w = method.parts[name], method.w[name]
    torch.manual_seed(5)
    with torch.no_grad():
        for each in method.w.values():
            each.normal_(std=0.1)
    seen = {}

    def remember(module, given, product):
        seen["W"] = product
        product.retain_grad()

    handle = part.register_forward_hook(remember)
    torch.manual_seed(6)
    batch = problem.batch(problem.train, np.arange(4))
    method.loss(problem, batch).backward()
    handle.remove()
    assert not method.after_backward(1)
    g = seen["W"].grad
    z = ((seen["W"] - part.pretrained) / w).detach()
    torch.testing.assert_close(w.grad, z * g, rtol=1e-8, atol=1e-12)
    alpha = part.alphas["entries"]
    p = torch.sigmoid(alpha.detach())
    s = (z + 1.5) / 3
    inside = (z > 1e-12) & (z < 1 - 1e-12)
    expected = torch.where(inside, w.detach() * g * 3 * s * (1 - s), 0.0) + 1e-2 * p * (1 - p)
    assert 0.1 < inside.double().mean() < 0.9
    torch.testing.assert_close(alpha.grad, expected, rtol=1e-6, atol=1e-10)


def test_the_gradient_of_a_tensor_s_own_z_is_that_of_a_difference_quotient():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(4, 3, dtype=torch.float64))
    part = diff_pruning._Masked(weight, 0.2, True, (-1.5, 1.5)).train()
    w, target = torch.randn_like(weight), torch.randn_like(weight)

    def loss(shift=0.0):
        torch.manual_seed(1)
        with torch.no_grad():
            part.alphas["tensor"] += shift
        value = (part(w) * target).sum()
        with torch.no_grad():
            part.alphas["tensor"] -= shift
        return value

    loss().backward()
    slope = (loss(1e-6) - loss(-1e-6)).item() / 2e-6
    assert part.alphas["tensor"].grad.item() == pytest.approx(slope, rel=1e-6) and slope != 0


def test_the_penalty_alone_drives_alpha_down_on_the_loop_s_schedule(make_problem, make_settings):
    """Adam at a constant slope moves by the rate: 0.1 at full rate, less in warm-up and decay."""
    problem = make_problem()
    told = make_settings(steps=10, warmup_steps=5)
    loop, method = attached(problem, told, penalty=1.0)
    rates = []
    loop.optimizer.register_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"] / told.learning_rate)
    )
    loop.run()
    moved = 5.0 - torch.cat([part.alphas["entries"].detach().flatten() for part in method.parts.values()])
    assert moved.median().item() == pytest.approx(0.1 * sum(rates), rel=0.05)
    assert max(rates) == 1.0 and min(rates) < 0.5


def test_training_moves_w_and_the_head_and_neither_the_start_nor_the_loss_s_meaning(make_problem, make_settings):
    problem = make_problem()
    before = weights_of(problem.model)
    loop, method = attached(problem, make_settings(weight_decay=0.0))
    outcome = loop.run()
    for name, part in method.parts.items():
        assert torch.equal(part.pretrained, before[name])
    moved = [name for name, w in method.w.items() if w.abs().max() > 1e-4]
    assert len(moved) > 0.8 * len(method.w)
    assert all(0 < loss < 5 for loss in outcome.losses), "the penalty, of ten thousands of entries, is not in it"


def test_projection_keeps_the_largest_and_a_fixed_mask_goes_on_from_it(make_problem, make_settings):
    problem = make_problem()
    loop, method = attached(problem, make_settings())
    loop.run()
    offsets = method.offsets(0.005)
    dense = {name: part.z(sampled=False) * method.w[name] for name, part in method.parts.items()}
    flat = torch.cat([each.detach().abs().flatten() for each in dense.values()])
    kept = torch.cat([each.values.abs() for each in offsets.values()])
    assert len(kept) == round(0.005 * len(flat))
    torch.testing.assert_close(kept.sort().values, flat.topk(len(kept)).values.sort().values)
    again = make_problem()
    start = weights_of(again.model)
    Loop(again, comparisons.FixedMask(offsets), make_settings()).run()
    after = weights_of(again.model)
    changed = sum((after[name] != start[name]).sum().item() for name in start)
    assert 0 < changed <= len(kept)


def test_a_resumed_run_goes_on_exactly(make_problem, make_settings, tmp_path):
    found = []
    for stop in (False, True):
        told, problem = make_settings(), make_problem()
        folder = tmp_path / str(stop)
        loop = Loop(problem, method := DiffPruning(structured=True), told, folder)
        if stop:
            for batches in loop._remaining_of_epoch()[:2]:
                loop.step(batches)
            loop._save()
            loop = Loop(make_problem(), method := DiffPruning(structured=True), told, folder)
            assert loop.resumed
        outcome = loop.run()
        found.append((outcome.losses, [*method.w.values()], [*method.alphas.values()]))
    (losses, ws, alphas_of), (losses_again, ws_again, alphas_again) = found
    assert losses == losses_again
    assert all(torch.equal(a, b) for a, b in zip(ws + alphas_of, ws_again + alphas_again, strict=True))


def test_a_step_that_is_skipped_leaves_no_gradient(make_problem, make_settings):
    problem = make_problem()
    loop, method = attached(problem, make_settings())
    alpha = next(iter(method.alphas.values()))
    alpha.grad = torch.full_like(alpha, torch.nan)
    loop.step([np.arange(4)])
    assert all(each.isfinite().all() for each in method.alphas.values())


# --- bad input


@pytest.mark.parametrize(
    "options", [{"penalty": -1e-9}, {"rate": 0.0}, {"rate": math.inf}, {"start": math.nan}, {"penalty": math.nan}]
)
def test_numbers_to_train_with(options):
    with pytest.raises(InputError, match="diff_pruning: penalty .*give finite numbers"):
        DiffPruning(**options)


@pytest.mark.parametrize("limits", [(0.0, 1.5), (-1.5, 1.0), (-math.inf, 1.5)])
def test_bounds_hold_0_and_1_inside(limits):
    with pytest.raises(InputError, match="must hold 0 and 1 strictly inside"):
        DiffPruning(lower=limits[0], upper=limits[1])
    with pytest.raises(InputError, match="must hold 0 and 1 strictly inside"):
        diff_pruning.cdf(0.5, 0.0, *limits)


@pytest.mark.parametrize("t", [-0.1, 1.0, 2.0])
def test_a_threshold_lies_in_0_1(t):
    with pytest.raises(InputError, match=r"t must lie in \[0, 1\)"):
        diff_pruning.cdf(t, 0.0)


def test_a_share_that_keeps_nothing_is_refused(make_problem, make_settings):
    _, method = attached(make_problem(), make_settings())
    with pytest.raises(InputError, match=r"must lie in \(0, 1\]"):
        method.offsets(0.0)


# --- memory


def test_what_is_held_between_steps():
    """Held after a step, gradients gone: W^p, w, alpha and four moments against W and two."""
    held = {}
    for name, method in (("full", Method()), ("diff_pruning", DiffPruning())):
        problem = RandomRows.draw(backbones.load("tiny-bert", 2, seed=0), rows=4, length=8, seed=0)
        loop = Loop(problem, method, Settings(1, 4, 1e-3, seed=0, steps=2, precision="fp32"))
        loop.step([np.arange(4)])
        tensors = [*loop.model.parameters(), *_states(loop.optimizer)]
        if isinstance(method, DiffPruning):
            tensors += [*method.alphas.values(), *_states(method.optimizer)]
            tensors += [part.pretrained for part in method.parts.values()]
            assert all(alpha.grad is None for alpha in method.alphas.values())
        assert all(parameter.grad is None for parameter in loop.model.parameters())
        held[name] = sum(each.nbytes for each in tensors)
    assert held["diff_pruning"] / held["full"] == pytest.approx(28 / 12, rel=0.01)


def _states(optimizer):
    return [tensor for state in optimizer.state.values() for tensor in state.values()]
