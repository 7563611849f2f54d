"""Mixing in Triton against plain PyTorch.

Tolerances: fp32 results 2e-6 of the largest term, as a product and a sum may be rounded once or twice; bf16 ones one unit in the last place, 2^-7.
"""

import pytest
import torch

from paperlib.kernels import mixing
from paperlib.kernels.mixing import Draw
from paperlib.kernels.packing import pack

SHAPES = [(1, 1), (3, 5), (37, 133), (64, 128), (2, 400), (0, 4), (4, 0)]
GATES = ["drawn", "columns", "entries", "bits"]
TOLERANCES = {torch.float32: {"rtol": 2e-6, "atol": 2e-6}, torch.bfloat16: {"rtol": 2**-7, "atol": 2**-7}}
DRAW = Draw(seed=2**62 + 2**33 + 5, step=2**31 + 3, first=2**33 + 8, p=0.3)


@pytest.fixture
def triton_path(kernel_device):
    from paperlib.kernels import mixing_triton

    return mixing_triton


def gate_of(kind, rows, columns, generator):
    if kind == "drawn":
        return DRAW
    gate = torch.rand((columns,) if kind == "columns" else (rows, columns), generator=generator) < 0.6
    return pack(gate) if kind == "bits" else gate


def given_to(gate, device):
    none, *numbers = mixing._given(gate)
    return (none if none is None else none.to(device), *numbers)


@pytest.mark.parametrize("given, wanted", [("fp32", "fp32"), ("fp32", "bf16"), ("bf16", "bf16")])
@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_mixed_is_that_of_plain_pytorch(triton_path, kernel_device, shape, kind, given, wanted):
    types = {"fp32": torch.float32, "bf16": torch.bfloat16}
    generator = torch.Generator().manual_seed(shape[1])
    weight, start = (torch.randn(shape, generator=generator).to(types[given]) for _ in range(2))
    gate = gate_of(kind, *shape, generator)
    found = triton_path.mixed(
        weight.to(kernel_device), start.to(kernel_device), *given_to(gate, kernel_device), 1 / 0.7, types[wanted]
    ).cpu()
    assert found.dtype == types[wanted]
    # Computed in fp32 in between, whatever comes in.
    expected = mixing.mixed(weight.float(), start.float(), gate, 1 / 0.7)
    torch.testing.assert_close(found.float(), expected, **TOLERANCES[types[wanted]])
    # The interpreter cuts bits off where a GPU rounds.
    if given == wanted or kernel_device.type == "cuda":
        shut = ~mixing._stored(gate, weight).expand(shape)
        assert torch.equal(found[shut], start.to(types[wanted])[shut])


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gated_is_that_of_plain_pytorch(triton_path, kernel_device, shape, kind, given):
    generator = torch.Generator().manual_seed(shape[0])
    gradient = torch.randn(shape, generator=generator).to(given)
    gate = gate_of(kind, *shape, generator)
    found = triton_path.gated(gradient.to(kernel_device), *given_to(gate, kernel_device), 1 / 0.7, torch.float32)
    expected = mixing.gated(gradient.clone(), gate, 1 / 0.7, torch.float32)
    torch.testing.assert_close(found.cpu(), expected, rtol=2e-7, atol=0)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_a_gradient_that_is_not_finite_stays_so_behind_a_shut_gate(triton_path, kernel_device):
    gradient = torch.tensor([[torch.inf, torch.nan, 1.0, 1.0]], device=kernel_device)
    gate = torch.tensor([False, False, False, True], device=kernel_device)
    found = triton_path.gated(gradient, gate, 0, 0, 0, 0, 2.0, torch.float32)
    assert found[0, :2].isnan().all() and found[0, 2:].tolist() == [0.0, 2.0]


def test_a_factor_of_one_gives_the_weight_bitwise(triton_path, kernel_device):
    weight, start = torch.randn(2, 9, 17, device=kernel_device)
    gate = torch.ones(17, dtype=torch.bool, device=kernel_device)
    assert torch.equal(triton_path.mixed(weight, start, gate, 0, 0, 0, 0, 1.0, torch.float32), weight)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1 - 2**-40])
@pytest.mark.parametrize("columns", [0, 1, 1030])
def test_counts_are_of_the_columns_that_the_draw_opens(triton_path, kernel_device, p, columns):
    draw = Draw(seed=3, step=9, first=4, p=p)
    counts = torch.arange(columns, dtype=torch.int32, device=kernel_device)
    triton_path.count_open(counts, *draw.numbers)
    assert torch.equal(counts.cpu(), torch.arange(columns, dtype=torch.int32) + draw.gate(columns))
    assert counts.dtype == torch.int32


def test_a_weight_is_counted_as_it_is_mixed(triton_path, kernel_device):
    """Two weights whose words follow one another, counted in one call."""
    first, second = Draw(1, 2, 0, 0.5), Draw(1, 2, 140, 0.5)
    counts = torch.zeros(340, dtype=torch.int32, device=kernel_device)
    triton_path.count_open(counts, *first.numbers)
    zero = torch.zeros(1, 200, device=kernel_device)
    mixed = [triton_path.mixed(zero + 1, zero, None, *each.numbers, 1.0, torch.float32)[0] for each in (first, second)]
    assert torch.equal(counts, torch.cat([mixed[0][:140], mixed[1]]).int())


def test_operators_are_registered_as_they_behave(triton_path, kernel_device):
    weight = torch.randn(3, 5, device=kernel_device)
    numbers = (None, 1, 2, 4, 99)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(triton_path.mixed, (weight, weight, *numbers, 2.0, torch.bfloat16), test_utils=checks)
    torch.library.opcheck(triton_path.gated, (weight, *numbers, 2.0, torch.bfloat16), test_utils=checks)
    counts = torch.zeros(6, dtype=torch.int32, device=kernel_device)
    torch.library.opcheck(triton_path.count_open, (counts, *numbers[1:]), test_utils=checks)


@pytest.fixture
def through_triton(triton_path, monkeypatch):
    """The public functions take the Triton path on any device."""
    monkeypatch.setattr(mixing.triton_path, "taken_by", lambda tensor: True)


@pytest.mark.parametrize("kind", GATES)
def test_a_layers_value_and_gradients(through_triton, kernel_device, monkeypatch, kind):
    generator = torch.Generator().manual_seed(0)
    x, weight, bias, start = (
        torch.randn(*shape, generator=generator) for shape in [(4, 2, 24), (9, 24), (9,), (9, 24)]
    )
    gate = gate_of(kind, 9, 24, generator)

    def trained(device):
        leaves = [each.to(device).requires_grad_() for each in (x, weight, bias)]
        there = gate if kind == "drawn" else gate.to(device)
        y = mixing.mixed_linear(*leaves, start.to(device), there, 2.5, 1.5)
        return [each.cpu() for each in (y.detach(), *torch.autograd.grad(y.square().sum(), leaves))]

    found = trained(kernel_device)
    monkeypatch.setattr(mixing.triton_path, "taken_by", lambda tensor: False)
    for one, other in zip(found, trained("cpu"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


def test_views_are_mixed_as_they_are_indexed(through_triton, kernel_device):
    wide = torch.randn(12, 14, device=kernel_device)
    weight, start, gate = wide.T[:, ::2], wide.T[:, 1::2], torch.rand(6, 14, device=kernel_device).T < 0.5
    found = mixing.mixed(weight, start, gate, 2.0)
    torch.testing.assert_close(found, torch.where(gate, 2 * weight - start, start), rtol=2e-6, atol=2e-6)
    gradient = torch.randn(6, 14, device=kernel_device).T
    assert torch.equal(mixing.gated(gradient, gate, 2.0, torch.float32), gradient * gate * 2)


def test_what_the_kernels_do_not_know_goes_the_plain_way(through_triton):
    weight = torch.randn(3, 4)
    assert not mixing._fused(weight, torch.ones(3, 4)) and not mixing._fused(weight.double(), DRAW)
    assert mixing._fused(weight, DRAW)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_under_autocast():
    draw = Draw(1, 1, 0, 0.1)
    x, weight, start = (torch.randn(512, 1024, device="cuda") for _ in range(3))
    weight.requires_grad_()
    with torch.autocast("cuda", torch.bfloat16):
        y = mixing.mixed_linear(x, weight, None, start, draw, 1 / 0.9, 1 / 0.9)
    y.float().sum().backward()
    gate = draw.gate(1024).cuda()
    assert torch.equal(weight.grad[:, ~gate], torch.zeros_like(weight.grad[:, ~gate]))
    expected = x.double() @ torch.where(gate, start + (weight - start) / 0.9, start).double().T
    assert (y - expected).norm() / expected.norm() < 1e-2
