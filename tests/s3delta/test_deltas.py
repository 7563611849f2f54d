"""Delta modules: sizes, first draws, and what each computes, in double precision."""

import math

import pytest
import torch
from torch import nn
from transformers.models.t5.modeling_t5 import T5LayerNorm

from paperlib.errors import InputError
from paperlib.s3delta.deltas import Adapter, BitFit, LNFiT, LoRA, LowRankAdapter

WIDTHS = [(64, 64), (64, 256), (96, 32)]


def made(delta, *given, **options):
    torch.manual_seed(0)
    return delta(*given, **options).double()


def hidden(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# --- sizes


@pytest.mark.parametrize("d_in, d_out", WIDTHS)
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_lora_has_rank_times_both_widths(d_in, d_out, rank):
    assert made(LoRA, d_in, d_out, rank).numel == rank * (d_in + d_out)


@pytest.mark.parametrize(
    "delta, numel",
    [
        (lambda: LoRA(1024, 1024), 2048),
        (lambda: LoRA(1024, 4096), 5120),
        (lambda: BitFit(4096), 4096),
        (lambda: LNFiT(T5LayerNorm(1024)), 1024),
        (lambda: LNFiT(nn.LayerNorm(768)), 768),
        (lambda: LowRankAdapter(1024), 3168),
        (lambda: LowRankAdapter(768), 3 * (768 + 24)),
        (lambda: LowRankAdapter(100), 3 * (100 + 3)),  # the inner width is rounded down
        (lambda: LowRankAdapter(128, rank=2), 5 * (128 + 4)),
        (lambda: Adapter(1024), 50_200),
    ],
)
def test_sizes_of_the_published_modules(delta, numel):
    assert delta().numel == numel


# --- first draws


def within_and_filling(draws, bound):
    """All within the bound, with a uniform's spread: standard deviation bound / sqrt(3) to 6 standard errors (kurtosis 9/5)."""
    assert draws.abs().max() <= bound
    error = bound / math.sqrt(3) * math.sqrt(0.2 / draws.numel())
    assert abs(draws.std() - bound / math.sqrt(3)) < 6 * error


def test_lora_starts_uniform_and_as_the_zero_map():
    delta = made(LoRA, 400, 300, 4)
    within_and_filling(delta.A.detach(), 1 / math.sqrt(400))
    assert delta.A.shape == (4, 400) and delta.B.shape == (300, 4) and not delta.B.any()


def test_loras_draw_is_kaimings_with_a_of_sqrt_5():
    torch.manual_seed(0)
    expected = nn.init.kaiming_uniform_(torch.empty(2, 50), a=math.sqrt(5))
    torch.testing.assert_close(made(LoRA, 50, 20, 2).A, expected.double())


def test_the_low_rank_adapter_starts_xavier_uniform_with_gain_sqrt_2():
    delta = made(LowRankAdapter, 6400)  # m = 200
    outside, inside = math.sqrt(12 / 6401), math.sqrt(12 / 201)
    for factor, bound in ((delta.l1, outside), (delta.r2, outside), (delta.r1, inside), (delta.l2, inside)):
        within_and_filling(factor.detach(), bound)
        torch.testing.assert_close(bound, math.sqrt(2) * math.sqrt(6 / sum(factor.shape)))
    assert not delta.c1.any() and not delta.c2.any()


def test_the_adapter_starts_small():
    delta = made(Adapter, 500)
    for weight in (delta.D, delta.U):
        assert abs(weight.std() - 0.01) < 6 * 0.01 / math.sqrt(2 * weight.numel())
    assert not delta.c1.any() and not delta.c2.any()


@pytest.mark.parametrize(
    "delta, zero",
    [
        (lambda: LoRA(64, 64), True),
        (lambda: BitFit(64), True),
        (lambda: LNFiT(nn.LayerNorm(64)), True),
        (lambda: LNFiT(T5LayerNorm(64)), True),
        (lambda: LowRankAdapter(64), False),
        (lambda: Adapter(64), False),
    ],
)
def test_only_adapters_change_anything_at_the_start(delta, zero):
    assert (made(delta)(hidden(5, 64)) == 0).all() == zero


def test_the_low_rank_adapter_first_moves_hidden_states_by_a_twentieth():
    """rms(out) / rms(in) is 0.044 on average at d = 1024, m = 32; pre-activations have variance 16 d / ((d + 1)(m + 1))."""
    torch.manual_seed(0)
    x, ratios, variances = hidden(16, 1024), [], []
    for _ in range(400):
        delta = LowRankAdapter(1024).double()
        ratios.append((delta(x).square().mean() / x.square().mean()).sqrt().item())
        variances.append((x @ delta.l1 @ delta.r1).square().mean().item())
    ratios, variances = torch.tensor(ratios), torch.tensor(variances)
    assert abs(ratios.mean() - 0.044) < 0.0005 + 3 * ratios.std() / 20
    assert abs(variances.mean() - 16 * 1024 / (1025 * 33)) < 4 * variances.std() / 20


# --- what they compute


def gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("rank, scale", [(1, 16), (8, 2)])
@pytest.mark.parametrize("d_in, d_out", WIDTHS)
def test_lora_is_scaled_by_16_over_its_rank(shaken, d_in, d_out, rank, scale):
    delta, x = shaken(made(LoRA, d_in, d_out, rank)), hidden(2, 5, d_in)
    torch.testing.assert_close(delta(x), scale * x @ (delta.B @ delta.A).T)


def test_bitfit_is_its_bias(shaken):
    delta = shaken(made(BitFit, 32))
    torch.testing.assert_close(hidden(2, 5, 32) + delta(hidden(2, 5, 32)), hidden(2, 5, 32) + delta.b)


@pytest.mark.parametrize("rank", [1, 2])
def test_the_low_rank_adapter_is_a_bottleneck_of_low_rank_products(shaken, rank):
    delta, h = shaken(made(LowRankAdapter, 96, rank=rank)), hidden(2, 5, 96)
    expected = gelu(h @ (delta.l1 @ delta.r1) + delta.c1) @ (delta.l2 @ delta.r2) + delta.c2
    torch.testing.assert_close(delta(h), expected)


def test_the_adapter_is_a_bottleneck(shaken):
    delta, h = shaken(made(Adapter, 40)), hidden(2, 5, 40)
    torch.testing.assert_close(delta(h), gelu(h @ delta.D.T + delta.c1) @ delta.U.T + delta.c2)


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(48, eps=1e-12), T5LayerNorm(48, eps=1e-6)], ids=["mean and variance", "rms"]
)
def test_lnfit_is_a_shift_of_the_norms_scale(exact_norms, shaken, norm):
    """norm(x; s) + z delta(x) = norm(x; s + z s'), whatever z."""
    norm, x = shaken(norm.double()), 3 * hidden(4, 48) + 1
    delta = shaken(made(LNFiT, norm), seed=2)
    for z in (0.3, 1.0):
        moved = {"weight": norm.weight + z * delta.s}
        together = norm(x) + z * delta(x)
        torch.testing.assert_close(together, torch.func.functional_call(norm, moved, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "delta",
    [
        lambda: LoRA(64, 32, 2),
        lambda: BitFit(64),
        lambda: LNFiT(nn.LayerNorm(64)),
        lambda: LowRankAdapter(64),
        lambda: Adapter(64),
    ],
)
def test_a_gate_on_the_outer_parameters_is_a_gate_on_the_delta(shaken, delta):
    delta, x = shaken(made(delta)), hidden(5, 64)
    gated = delta(x, *(0.3 * delta.scale * parameter for parameter in delta.outer_parameters()))
    torch.testing.assert_close(gated, 0.3 * delta(x))


# --- merging


def test_lora_and_bitfit_merge_into_a_linear_map_with_a_bias(shaken):
    host, x = nn.Linear(32, 48).double(), hidden(5, 32)
    lora, bitfit = shaken(made(LoRA, 32, 48)), shaken(made(BitFit, 48))
    expected = host(x) + lora(x) + bitfit(x)
    assert lora.merge(host) and bitfit.merge(host)
    torch.testing.assert_close(host(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", [nn.LayerNorm(48), T5LayerNorm(48)], ids=["mean and variance", "rms"])
def test_lnfit_merges_into_a_norm(exact_norms, shaken, norm):
    norm, x = norm.double(), hidden(5, 48)
    delta = shaken(made(LNFiT, norm))
    expected = norm(x) + delta(x)
    assert delta.merge(norm)
    torch.testing.assert_close(norm(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "delta, host",
    [
        (lambda: BitFit(32), nn.Linear(32, 32, bias=False)),
        (lambda: BitFit(32), T5LayerNorm(32)),
        (lambda: LowRankAdapter(32), nn.Linear(32, 32)),
        (lambda: Adapter(32), nn.Linear(32, 32)),
    ],
)
def test_what_the_host_cannot_hold_is_left_alone(shaken, delta, host):
    before = {name: parameter.clone() for name, parameter in host.named_parameters()}
    assert not shaken(made(delta)).merge(host.double())
    assert before.keys() == dict(host.named_parameters()).keys()
    assert all(torch.equal(before[name].double(), parameter) for name, parameter in host.named_parameters())


# --- bad input


def test_impossible_sizes_are_refused():
    with pytest.raises(InputError, match="rank must be at least 1, got 0"):
        LoRA(8, 8, 0)
    with pytest.raises(InputError, match="width 16, reduction 32 and rank 1 is empty"):
        LowRankAdapter(16)
