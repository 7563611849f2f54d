"""Linear layers with a low-rank term against autograd through the same formula."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from paperlib.kernels.low_rank import low_rank_linear

sizes = st.integers(1, 7)


def drawn(seed, batch, rows, columns, rank, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shapes = (batch, 2, columns), (rows, columns), (rows,), (rank, columns), (rows, rank)
    x, weight, bias, A, B = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    return x.requires_grad_(), weight, bias.requires_grad_(), A.requires_grad_(), B.requires_grad_()


def gradients(y, *inputs):
    return torch.autograd.grad(y.double().square().sum(), inputs)


@settings(deadline=None)
@given(seed=st.integers(0, 999), batch=sizes, rows=sizes, columns=sizes, rank=st.integers(1, 3), biased=st.booleans())
def test_value_and_gradients_are_those_of_the_formula(seed, batch, rows, columns, rank, biased):
    x, weight, bias, A, B = drawn(seed, batch, rows, columns, rank)
    bias, inputs = (bias, (x, bias, A, B)) if biased else (None, (x, A, B))
    ours = low_rank_linear(x, weight, bias, A, B)
    formula = functional.linear(x, weight, bias) + x @ A.T @ B.T
    torch.testing.assert_close(ours, formula, rtol=1e-12, atol=1e-12)
    direction = torch.randn(ours.shape, dtype=ours.dtype)
    expected = torch.autograd.grad(formula, inputs, direction)
    for one, other in zip(torch.autograd.grad(ours, inputs, direction), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dtype, autocast", [(torch.float32, False), (torch.float64, False), (torch.float32, True)])
def test_without_a_second_factor_the_layer_is_what_it_was_bit_for_bit(biased, dtype, autocast):
    x, weight, bias, A, B = drawn(0, 40, 96, 64, 2, dtype)
    bias = bias if biased else None
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours, plain = low_rank_linear(x, weight, bias, A, torch.zeros_like(B)), functional.linear(x, weight, bias)
    assert ours.dtype == plain.dtype and torch.equal(ours, plain)


def test_autocast_computes_in_bf16_and_gives_gradients_as_wide_as_their_tensors():
    x, weight, bias, A, B = drawn(0, 20, 48, 32, 1, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        ours = low_rank_linear(x, weight, bias, A, B)
        formula = functional.linear(x, weight, bias) + functional.linear(functional.linear(x, A), B)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours, formula, rtol=0.02, atol=0.1)
    for one, other in zip(gradients(ours, x, bias, A, B), gradients(formula, x, bias, A, B), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.03, atol=0.02 * other.abs().max().item())


@pytest.mark.parametrize("wanted", ["x", "bias", "A", "B", "AB", "none"])
def test_what_needs_no_gradient_gets_none_and_the_rest_its_own(wanted):
    named = dict(zip(("x", "weight", "bias", "A", "B"), drawn(0, 3, 4, 5, 2), strict=True))
    inputs = [named[name] for name in {"AB": ("A", "B"), "none": ()}.get(wanted, (wanted,))]
    given = {
        name: tensor if any(tensor is each for each in inputs) else tensor.detach() for name, tensor in named.items()
    }
    formula = functional.linear(given["x"], given["weight"], given["bias"]) + given["x"] @ given["A"].T @ given["B"].T
    ours = low_rank_linear(**given)
    assert ours.requires_grad == bool(inputs)
    if inputs:
        for one, other in zip(gradients(ours, *inputs), gradients(formula, *inputs), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_the_frozen_weight_gets_no_gradient():
    x, weight, bias, A, B = drawn(0, 3, 4, 5, 1)
    low_rank_linear(x, weight.requires_grad_(), bias, A, B).sum().backward()
    assert weight.grad is None and x.grad is not None
