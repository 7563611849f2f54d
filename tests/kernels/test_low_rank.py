"""Linear layers with a low-rank term, and low-rank adapters, against autograd through the same formula."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from paperlib.kernels.low_rank import low_rank_adapter, low_rank_linear

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


def kept(compute) -> set[int]:
    """Addresses of the storages that autograd keeps of ``compute()`` for its backward pass."""
    found = set()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: (found.add(t.untyped_storage().data_ptr()), t)[1], lambda t: t
    ):
        compute()
    return found


@pytest.mark.parametrize("form", ["none", "tanh"])
@pytest.mark.parametrize("dtype, autocast", [(torch.float64, False), (torch.float32, True)])
def test_the_gelu_it_reads_is_computed_again_instead_of_kept(form, dtype, autocast):
    u, weight, bias, A, B = drawn(0, 20, 48, 32, 1, dtype)
    u = u.bfloat16().detach().requires_grad_() if autocast else u
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        hidden, outputs = functional.gelu(u, approximate=form), []
        saved = kept(lambda: outputs.append(low_rank_linear(hidden, weight, bias, A, B)))
        told = low_rank_linear(hidden.detach().requires_grad_(), weight, bias, A, B)
    assert hidden.untyped_storage().data_ptr() not in saved and u.untyped_storage().data_ptr() in saved
    assert all(map(torch.equal, gradients(outputs[0], A, B, bias), gradients(told, A, B, bias)))


def test_layers_of_one_input_keep_one_cast_of_it():
    x, weight, bias, A, B = drawn(0, 20, 32, 32, 1, torch.float32)
    cast = x.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        each = [kept(lambda: low_rank_linear(x, weight, bias, A, B, cast)) for _ in range(2)]
        ours, plain = low_rank_linear(x, weight, bias, A, B, cast), low_rank_linear(x, weight, bias, A, B)
    assert all(cast.untyped_storage().data_ptr() in found for found in each)
    assert torch.equal(ours, plain)
    assert all(map(torch.equal, gradients(ours, x, bias, A, B), gradients(plain, x, bias, A, B)))


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


def adapter_drawn(seed, batch, width, inner, rank, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shapes = (batch, 2, width), (width, rank), (rank, inner), (inner,), (inner, rank), (rank, width), (width,)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def adapter_formula(x, l1, r1, c1, l2, r2, c2):
    hidden = functional.gelu(functional.linear(x, (l1 @ r1).T, c1), approximate="tanh")
    return x + functional.linear(hidden, (l2 @ r2).T, c2)


@settings(deadline=None)
@given(seed=st.integers(0, 999), batch=sizes, width=sizes, inner=sizes, rank=st.integers(1, 3))
def test_adapter_and_its_gradients_are_those_of_the_formula(seed, batch, width, inner, rank):
    inputs = adapter_drawn(seed, batch, width, inner, rank)
    ours, formula = low_rank_adapter(*inputs), adapter_formula(*inputs)
    torch.testing.assert_close(ours, formula, rtol=1e-12, atol=1e-12)
    direction = torch.randn(ours.shape, dtype=ours.dtype)
    expected = torch.autograd.grad(formula, inputs, direction)
    for one, other in zip(torch.autograd.grad(ours, inputs, direction), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype, autocast", [(torch.float32, False), (torch.float32, True), (torch.bfloat16, True)])
def test_an_adapter_without_its_outer_factor_is_the_identity_bit_for_bit(dtype, autocast):
    x, l1, r1, c1, l2, r2, c2 = adapter_drawn(0, 40, 64, 2, 1, torch.float32)
    x = x.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours = low_rank_adapter(x, l1, r1, c1, l2, torch.zeros_like(r2), torch.zeros_like(c2))
    assert ours.dtype == dtype and torch.equal(ours, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_under_autocast_is_the_formula_to_bf16_and_keeps_types(dtype):
    first, *factors = adapter_drawn(0, 20, 32, 4, 1, torch.float32)
    x = first.detach().to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        ours = low_rank_adapter(x, *factors)
    wide = x.detach().float().requires_grad_()
    formula = adapter_formula(wide, *factors)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.float(), formula, rtol=0.03, atol=0.03 * formula.abs().max().item())
    expected = gradients(formula, wide, *factors)
    for one, other, source in zip(gradients(ours, x, *factors), expected, (x, *factors), strict=True):
        assert one.dtype == source.dtype
        torch.testing.assert_close(one.float(), other, rtol=0.05, atol=0.05 * other.abs().max().item())


@pytest.mark.parametrize("wanted", range(7))
def test_what_of_an_adapter_needs_no_gradient_gets_none_and_the_rest_its_own(wanted):
    inputs = [each.detach() for each in adapter_drawn(0, 3, 5, 4, 2)]
    inputs[wanted].requires_grad_()
    (one,), (other,) = (gradients(map(*inputs), inputs[wanted]) for map in (low_rank_adapter, adapter_formula))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_an_adapter_of_frozen_factors_keeps_no_hidden_states():
    kept = []
    x, *factors = (each.detach() for each in adapter_drawn(0, 3, 9, 4, 1))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        low_rank_adapter(x, *factors[:-1], factors[-1].requires_grad_())
    assert kept and (6, 9) not in kept
