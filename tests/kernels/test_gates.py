"""Gates in two Triton launches against the float64 composition of PyTorch's operators: values to 1e-12, gradients to 1e-9 of the largest."""

import pytest
import torch

from paperlib.kernels import gates as kernels
from paperlib.s3delta.gates import Gates, budget_shift

COUNTS = [1, 2, 5, 255, 256, 257, 916]


@pytest.fixture
def triton_path(kernel_device):
    from paperlib.kernels import gates_triton

    return gates_triton


def problem(count, scale=1.0, seed=0):
    """Logits, sizes and uniform draws."""
    generator = torch.Generator().manual_seed(seed + count)
    alpha = scale * torch.randn(count, dtype=torch.float64, generator=generator)
    sizes = torch.randint(1, 5000, (count,), generator=generator)
    return alpha, sizes, torch.rand(count, dtype=torch.float64, generator=generator)


def both(monkeypatch, device, alpha, u, gates):
    """z and the gradient in alpha of a weighted sum of z: composed, and by the kernels."""
    weights, found = torch.linspace(-1, 2, len(alpha), dtype=torch.float64), []
    for taken, place in ((False, torch.device("cpu")), (True, device)):
        monkeypatch.setattr("paperlib.s3delta.gates.triton_path.taken_by", lambda tensor, taken=taken: taken)
        there = Gates(gates.sizes.to(place), gates.budget, gates.tau, gates.beta, gates.gradient, gates.hard)
        leaf = alpha.to(place).requires_grad_()
        z = there.sample(leaf, u.to(place))
        (slope,) = torch.autograd.grad(z @ weights.to(place), leaf)
        found.append((z.detach().cpu(), slope.cpu()))
    return found


def agree(composed, ours):
    torch.testing.assert_close(ours[0], composed[0], rtol=1e-12, atol=1e-14)
    scale = composed[1].abs().max().item()
    torch.testing.assert_close(ours[1], composed[1], rtol=1e-9, atol=1e-9 * scale + 1e-300)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("gradient", kernels.FORMS)
@pytest.mark.parametrize("count", COUNTS[1:])
def test_gates_and_their_gradient_are_those_of_the_composition(
    triton_path, kernel_device, monkeypatch, count, gradient, hard
):
    alpha, sizes, u = problem(count)
    gates = Gates(sizes, max(0.3 * sizes.sum().item(), sizes.min().item()), 0.7, 0.6, gradient, hard)
    agree(*both(monkeypatch, kernel_device, alpha, u, gates))


@pytest.mark.parametrize("scale", [0.0, 1e-9, 100.0])
@pytest.mark.parametrize("share", [1e-4, 0.5, 1 - 1e-6])
def test_equal_logits_logits_far_apart_and_budgets_near_the_ends(triton_path, kernel_device, monkeypatch, scale, share):
    alpha, sizes, u = problem(300, scale)
    sizes[0] = 1
    gates = Gates(sizes, max(share * sizes.sum().item(), 1.0))
    agree(*both(monkeypatch, kernel_device, alpha, u, gates))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("tau", [0.1, 1.0, 5.0])
def test_the_budget_is_spent_to_rounding(triton_path, kernel_device, count, tau):
    """By log-odds too, whose shift is that of the reference."""
    alpha, sizes, u = problem(count, 3.0)
    budget = 0.0545 * sizes.sum().item()
    numbers = torch.tensor([budget, tau, 1.0], dtype=torch.float64)
    given = (each.to(kernel_device) for each in (alpha, sizes, u, numbers))
    log_odds = triton_path.draw(*given, False)[2].cpu()
    assert (torch.sigmoid(log_odds) @ sizes.double()).item() == pytest.approx(budget, rel=1e-13)
    zeta = budget_shift(alpha, sizes, budget, tau)
    torch.testing.assert_close(
        log_odds, (alpha - zeta) / tau, rtol=0, atol=1e-12 * (1 + (alpha / tau).abs().max().item())
    )


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("hard", [False, True])
def test_where_all_gates_would_be_off_the_likeliest_is_on(triton_path, kernel_device, monkeypatch, hard):
    """In another chunk than the first; hard: unlucky draws; soft: a temperature at which gates round to 0."""
    alpha = torch.linspace(-1, 1, 300, dtype=torch.float64).roll(-10)
    gates = Gates(torch.full((300,), 4), 8.0, beta=1.0 if hard else 1e-3, gradient="local", hard=hard)
    composed, ours = both(monkeypatch, kernel_device, alpha, torch.full((300,), 1e-3, dtype=torch.float64), gates)
    assert ours[0].sum() == 1 and ours[0][alpha.argmax()] == 1
    agree(composed, ours)


def test_of_equal_logits_the_first_is_the_likeliest(triton_path, kernel_device):
    given = torch.zeros(600), torch.full((600,), 4), torch.zeros(600), torch.tensor([8.0, 1.0, 1.0])
    alpha, sizes, u, numbers = (
        each.to(kernel_device, torch.int64 if each.dtype == torch.int64 else torch.float64) for each in given
    )
    z = triton_path.draw(alpha, sizes, u, numbers, True)[0]
    assert z.nonzero().tolist() == [[0]]


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("gradient", kernels.FORMS)
def test_saturated_logits_pass_finite_gradients(triton_path, kernel_device, monkeypatch, gradient):
    alpha = torch.tensor([1e3, 1e3, -1e3, -1e3], dtype=torch.float64)
    u = torch.tensor([0.0, 0.5, 0.5, 1.0], dtype=torch.float64)
    composed, ours = both(monkeypatch, kernel_device, alpha, u, Gates(torch.full((4,), 6), 15.0, gradient=gradient))
    assert ours[1].isfinite().all()
    agree(composed, ours)


def test_operators_are_registered_as_they_behave(triton_path, kernel_device):
    alpha, sizes, u = (each.to(kernel_device) for each in problem(5))
    numbers = torch.tensor([sizes.sum().item() / 3, 1.0, 1.0], dtype=torch.float64, device=kernel_device)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(triton_path.draw, (alpha, sizes, u, numbers, True), test_utils=checks)
    drawn = triton_path.draw(alpha, sizes, u, numbers, True)
    torch.library.opcheck(triton_path.slope, (alpha, *drawn, sizes, numbers, 1, True), test_utils=checks)
