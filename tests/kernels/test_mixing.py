"""Mixed linear layers against autograd through the same formula, and what they keep between passes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from paperlib.kernels.mixing import Draw, count_open, mixed, mixed_linear
from paperlib.kernels.packing import pack

sizes = st.integers(1, 7)


def drawn(seed, batch, rows, columns, whole_columns, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 2, columns, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(rows, columns, generator=generator, dtype=dtype, requires_grad=True)
    bias = torch.randn(rows, generator=generator, dtype=dtype, requires_grad=True)
    start = torch.randn(rows, columns, generator=generator, dtype=dtype)
    gate = torch.rand((columns,) if whole_columns else (rows, columns), generator=generator) < 0.6
    return x, weight, bias, start, gate


def gradients(y, *inputs):
    return torch.autograd.grad(y.square().sum(), inputs)


@settings(deadline=None)
@given(seed=st.integers(0, 999), batch=sizes, rows=sizes, columns=sizes, whole=st.booleans(), factor=st.floats(1, 5))
def test_value_and_true_gradient_are_those_of_the_formula(seed, batch, rows, columns, whole, factor):
    x, weight, bias, start, gate = drawn(seed, batch, rows, columns, whole)
    ours = mixed_linear(x, weight, bias, start, gate, factor, factor)
    formula = functional.linear(x, start + gate.double() * factor * (weight - start), bias)
    torch.testing.assert_close(ours, formula, rtol=1e-12, atol=1e-12)
    for one, other in zip(gradients(ours, x, weight, bias), gradients(formula, x, weight, bias), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@settings(deadline=None)
@given(seed=st.integers(0, 99), whole=st.booleans())
def test_the_gradient_factor_scales_the_weights_gradient_alone(seed, whole):
    x, weight, bias, start, gate = drawn(seed, 3, 4, 5, whole)
    true = gradients(mixed_linear(x, weight, bias, start, gate, 2.5, 2.5), x, weight, bias)
    coded = gradients(mixed_linear(x, weight, bias, start, gate, 2.5, 1.0), x, weight, bias)
    torch.testing.assert_close(true[1], 2.5 * coded[1])
    assert torch.equal(true[0], coded[0]) and torch.equal(true[2], coded[2])
    assert not coded[1][~gate.expand_as(weight)].any()


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_a_shut_gate_gives_the_start_bitwise_whatever_type_it_is_kept_in(dtype):
    _, weight, _, start, gate = drawn(0, 1, 6, 5, False, torch.float32)
    used = mixed(weight.detach(), start, gate.to(dtype), 1 / 0.7)
    assert torch.equal(used[~gate], start[~gate])
    assert torch.equal(mixed(weight.detach(), start, torch.ones_like(gate).to(dtype), 1.0), weight.detach())


def test_no_bias():
    x, weight, _, start, gate = drawn(0, 2, 3, 4, True)
    y = mixed_linear(x, weight, None, start, gate, 2.0, 2.0)
    torch.testing.assert_close(y, functional.linear(x, start + gate * 2.0 * (weight - start)))
    y.sum().backward()
    assert weight.grad is not None


def kept(make):
    """Bytes that stay from the forward pass to the backward pass, the leaves' own aside."""
    leaves = {t.untyped_storage().data_ptr() for t in make.leaves}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in leaves:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = make()
    y.float().sum().backward()
    return sum(found.values())


class Pass:
    """One forward pass of a 64 x 32 layer on 2 rows, plain or mixed."""

    def __init__(self, is_mixed, autocast):
        x, weight, bias, start, gate = drawn(0, 1, 64, 32, True, torch.float32)
        self.leaves = x, weight, bias, start, gate
        self.is_mixed, self.autocast = is_mixed, autocast

    def __call__(self):
        x, weight, bias, start, gate = self.leaves
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            return (
                mixed_linear(x, weight, bias, start, gate, 2.0, 1.0)
                if self.is_mixed
                else functional.linear(x, weight, bias)
            )


@pytest.mark.parametrize("autocast", [False, True])
def test_the_graph_keeps_no_more_than_a_plain_layers(autocast):
    assert kept(Pass(True, autocast)) <= kept(Pass(False, autocast))


def test_autocast_computes_in_its_dtype_and_leaves_gradients_in_the_weights():
    make = Pass(True, True)
    y = make()
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    x, weight, bias, start, gate = make.leaves
    formula = functional.linear(x.double(), (start + gate * 2.0 * (weight - start)).double(), bias.double())
    torch.testing.assert_close(y.double(), formula, rtol=0.02, atol=0.2)
    assert {t.grad.dtype for t in (x, weight, bias)} == {torch.float32}


# --- gates that are drawn again


@settings(deadline=None)
@given(seed=st.integers(0, 2**63 - 1), step=st.integers(0, 2**32 - 1), rows=sizes, columns=sizes, p=st.floats(0, 0.9))
def test_a_draw_is_the_gate_that_it_draws(seed, step, rows, columns, p):
    x, weight, bias, start, _ = drawn(0, 2, rows, columns, True)
    draw = Draw(seed, step, 8, p)
    by_draw, by_gate = (mixed_linear(x, weight, bias, start, gate, 2.0, 3.0) for gate in (draw, draw.gate(columns)))
    assert torch.equal(by_draw, by_gate)
    for one, other in zip(gradients(by_draw, x, weight, bias), gradients(by_gate, x, weight, bias), strict=True):
        assert torch.equal(one, other)


def test_a_draw_opens_columns_as_often_as_it_says():
    """Within five standard deviations over 2^16 columns; all of them where p is 0."""
    assert Draw(1, 2, 0, 0.0).gate(1000).all()
    shut = int((~Draw(1, 2, 0, 0.3).gate(2**16)).sum())
    assert abs(shut - 0.3 * 2**16) < 5 * (0.3 * 0.7 * 2**16) ** 0.5


def test_open_columns_are_counted():
    draw, counts = Draw(1, 2, 0, 0.5), torch.ones(40, dtype=torch.int32)
    count_open(counts, draw)
    assert torch.equal(counts, 1 + draw.gate(40).int())


def test_the_graph_keeps_nothing_of_a_draw():
    stored, again = Pass(True, True), Pass(True, True)
    again.leaves = *again.leaves[:4], Draw(1, 2, 0, 0.5)
    kinds = [saved_types(make) for make in (stored, again)]
    assert kinds[0].count(torch.bool) == 1 and kinds[1].count(torch.bool) == 0


def saved_types(make):
    """Types of what stays from the forward pass to the backward pass."""
    found = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: found.append(tensor.dtype), lambda nothing: nothing):
        make()
    return found


@pytest.mark.parametrize(
    "wrong", [{"seed": -1}, {"seed": 2**63}, {"step": 2**32}, {"first": 2}, {"first": -4}, {"p": 1.0}]
)
def test_impossible_draws_are_refused(wrong):
    with pytest.raises(ValueError, match="no such draw"):
        Draw(**({"seed": 0, "step": 0, "first": 0, "p": 0.1} | wrong))


def test_packed_gates():
    x, weight, bias, start, gate = drawn(3, 2, 5, 7, False)
    packed, plain = (mixed_linear(x, weight, bias, start, each, 2.0, 2.0) for each in (pack(gate), gate))
    assert torch.equal(packed, plain)
    assert torch.equal(gradients(packed, weight)[0], gradients(plain, weight)[0])
