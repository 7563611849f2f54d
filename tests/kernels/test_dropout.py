"""Dropout from 16 random bits: the fast form against the plain one, its probabilities, and where it steps in for torch's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from paperlib import backbones
from paperlib.kernels.dropout import LEVELS, FastDropout, dropout, dropout_reference, threshold

SHAPES = st.lists(st.integers(0, 7), max_size=4).map(tuple)
PROBABILITIES = st.floats(0, 1, exclude_max=True)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16])


def generator(seed=0):
    return np.random.Generator(np.random.SFC64(seed))


def bits(x):
    return x.view(torch.int16 if x.element_size() == 2 else torch.int32)


class EveryLevel:
    """A generator whose 16-bit numbers are 0, 1, ..., 65535."""

    def integers(self, low, high, words, dtype):
        assert 4 * words == LEVELS
        return np.arange(LEVELS, dtype=np.uint16).view(dtype)


@given(shape=SHAPES, p=PROBABILITIES, dtype=DTYPES, seed=st.integers(0, 99))
@settings(deadline=None)
def test_fast_equals_reference_bitwise(shape, p, dtype, seed):
    """Empty tensors, scalars and element counts that fill no 64-bit word are among the shapes."""
    x = torch.randn(shape).to(dtype)
    fast, plain = dropout(x, p, generator(seed)), dropout_reference(x, p, generator(seed))
    assert fast.dtype == dtype and fast.shape == x.shape
    # A dropped negative is -0.0 in one form and 0.0 in the other; adding 0 makes them one.
    assert torch.equal(bits(fast + 0.0), bits(plain + 0.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("view", [lambda x: x.T, lambda x: x[::2, 1:], lambda x: x[:, :1].expand(-1, 5)])
def test_memory_layout_does_not_matter(view, dtype):
    x = view(torch.randn(33, 7).to(dtype))
    assert not x.is_contiguous()
    expected = dropout_reference(x.contiguous(), 0.3, generator())
    assert torch.equal(dropout(x, 0.3, generator()), expected)


@given(p=PROBABILITIES)
@settings(deadline=None)
def test_over_all_levels_the_drop_probability_is_the_nearest_and_the_mean_is_kept(p):
    out = dropout(torch.ones(LEVELS), p, EveryLevel())
    dropped = int((out == 0).sum())
    assert abs(dropped / LEVELS - p) <= (0.5 if round(p * LEVELS) < LEVELS else 1) / LEVELS
    assert out.double().mean().item() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_frequency_of_dropping_and_mean_lie_within_binomial_bounds(p):
    n = 400_001
    out = dropout(torch.full((n,), 3.0), p, generator(7))
    five_sigma = 5 * np.sqrt(p * (1 - p) / n)
    assert abs((out == 0).double().mean().item() - p) < five_sigma
    assert abs(out.double().mean().item() / 3 - 1) < five_sigma / (1 - p)


def test_neighbours_are_dropped_independently():
    kept = dropout(torch.ones(400_000), 0.5, generator(3)) != 0
    for lag in (1, 2, 3, 4, 5, 8):
        assert abs((kept[lag:] == kept[:-lag]).double().mean().item() - 0.5) < 5 * 0.5 / np.sqrt(400_000)


@given(shape=SHAPES, p=PROBABILITIES)
@settings(deadline=None)
def test_the_gradient_is_the_mask_times_the_scale(shape, p):
    x = torch.ones(shape, requires_grad=True)
    out = dropout(x, p, generator())
    out.backward(torch.full(shape, 2.0))
    factor = torch.tensor(LEVELS / (LEVELS - threshold(p)))
    assert torch.equal(x.grad, torch.where(out == 0, 0.0, 2 * factor))


def test_the_generator_state_decides():
    x, source = torch.ones(999), generator(5)
    state = source.bit_generator.state
    first, second = dropout(x, 0.4, source), dropout(x, 0.4, source)
    assert not torch.equal(first, second)
    source.bit_generator.state = state
    assert torch.equal(dropout(x, 0.4, source), first)


# --- standing in for torch's


def test_modules_and_functions_alike():
    x = torch.randn(64, 9)
    expected = dropout(x, 0.25, generator())
    with FastDropout(generator()):
        assert torch.equal(torch.nn.Dropout(0.25)(x), expected)
    with FastDropout(generator()):
        assert torch.equal(functional.dropout(x, 0.25), expected)
    with FastDropout(generator()):
        assert torch.equal(functional.dropout(x, p=0.25, training=True), expected)


@pytest.mark.parametrize("off", [{"p": 0.0}, {"p": 0.5, "training": False}])
def test_without_probability_or_training_it_is_the_identity_and_draws_nothing(off):
    x, source = torch.randn(8), generator()
    before = source.bit_generator.state
    with FastDropout(source):
        assert functional.dropout(x, **off) is x
        assert torch.nn.Dropout(0.5).eval()(x) is x
    assert repr(source.bit_generator.state) == repr(before)


def test_in_place():
    x = torch.randn(50)
    expected = dropout(x, 0.5, generator())
    with FastDropout(generator()):
        out = torch.nn.Dropout(0.5, inplace=True)(x)
    assert out is x and torch.equal(x, expected)


def test_in_place_keeps_the_gradient():
    leaf = torch.ones(50, requires_grad=True)
    with FastDropout(generator()):
        functional.dropout(leaf * 1, 0.5, inplace=True).sum().backward()
    assert torch.equal(leaf.grad, dropout(torch.ones(50), 0.5, generator()))


def test_outside_the_context_torch_draws_its_own():
    x, source = torch.ones(1000), generator()
    before = repr(source.bit_generator.state)
    with FastDropout(source):
        pass
    torch.manual_seed(0)
    ours = functional.dropout(x, 0.5)
    torch.manual_seed(0)
    assert torch.equal(ours, torch.nn.Dropout(0.5)(x))
    assert repr(source.bit_generator.state) == before


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-t5"])
def test_no_dropout_of_a_real_model_escapes(name):
    """Attention dropout included: torch's generator stands still, and the same state gives the same logits."""
    model = backbones.load(name, 2, seed=0).model.train()
    ids = torch.arange(20, 36).view(2, 8)
    inputs = {"input_ids": ids} | ({"labels": ids} if name == "tiny-t5" else {})
    before = torch.get_rng_state()
    with FastDropout(generator(1)):
        first = model(**inputs).logits
    with FastDropout(generator(1)):
        assert torch.equal(model(**inputs).logits, first)
    with FastDropout(generator(2)):
        assert not torch.equal(model(**inputs).logits, first)
    assert torch.equal(torch.get_rng_state(), before)
