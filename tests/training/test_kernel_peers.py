"""All ways to a kernel's result find the same, with the gates of either device."""

import pytest
import torch

from paperlib.training import kernel_peers, limits
from paperlib.training.kernel_peers import OURS, WIDTH

DTYPES = [torch.float32, torch.bfloat16]


def close(found, expected, dtype):
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2**-6, "atol": 2e-2}
    torch.testing.assert_close(found, expected, **tolerance)


def each_weight(way):
    """What a turn computes of every weight, which it lets go; it uses its gradients up."""
    one, *columns = way.turn.args
    return [one(*(c.clone() if torch.is_tensor(c) else c for c in each)) for each in zip(*columns, strict=True)]


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_mixed_weights_and_gated_gradients(dtype, on_gpu):
    found = kernel_peers.mixing(5 * WIDTH, dtype, 0.3, seed=0, on_gpu=on_gpu)
    for name, ways in found.items():
        (ours,), (theirs,) = map(each_weight, ways.values())
        close(ours, theirs, dtype)
        assert ours.shape == (5, WIDTH) and ours.dtype == (dtype if "mixed" in name else torch.float32), name


def test_gates_of_a_gpu_are_drawn_or_bits_and_move_less():
    """By hand, in bf16: a weight and its start are read, a narrower weight written; a gradient is read, a wider one written."""
    bytes_of = {
        on_gpu: [
            way.bytes / (5 * WIDTH)
            for ways in kernel_peers.mixing(5 * WIDTH, torch.bfloat16, 0.3, 0, on_gpu).values()
            for way in ways.values()
        ]
        for on_gpu in (True, False)
    }
    assert bytes_of[True] == [10, 18, 6, 14, 10.125, 27, 6.125, 15]
    assert bytes_of[False] == [10, 18, 6, 14, 11, 27, 7, 15]


def test_large_weights_are_several():
    found = kernel_peers.mixing((kernel_peers.HEIGHT + 3) * WIDTH, torch.bfloat16, 0.3, 0, on_gpu=True)
    shapes = [each.shape for each in each_weight(found["mixed weights, columns"][OURS])]
    assert shapes == [(kernel_peers.HEIGHT, WIDTH), (3, WIDTH)]


def test_counts_of_open_columns():
    ways = kernel_peers.counts(64, p=0.3, seed=0)
    ways[OURS].turn()
    (counts, draw) = ways[OURS].turn.args
    assert torch.equal(counts, draw.gate(64).int()) and 0 < counts.sum() < 64
    assert set(ways["torch"].turn().tolist()) == {0, 1}


def test_gates_under_a_budget(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setattr(kernel_peers, "MODULES", 16)
    ours, theirs = (way.turn() for way in kernel_peers.gates().values())
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == (16,) and one.dtype == torch.float64
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_products_with_sparse_offsets():
    ways = kernel_peers.sparse_offsets(rows=3)
    ours = ways[OURS].turn()
    assert ours.shape == (kernel_peers.TASKS, 3, WIDTH)
    for name in ("dense", "torch.sparse"):
        torch.testing.assert_close(ours, torch.stack(ways[name].turn()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_low_rank_terms_and_adapters(dtype):
    for ways in kernel_peers.low_rank(3, dtype).values():
        ours, theirs = (way.turn() for way in ways.values())
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            close(one, other, dtype)


def test_dropout_keeps_nine_of_ten():
    for way in kernel_peers.dropouts(20_000, torch.float32, seed=0).values():
        assert way.turn().count_nonzero() / 20_000 == pytest.approx(0.9, abs=0.01)


def test_every_way_to_a_result_needs_the_same_operations_and_ours_moves_no_more():
    for name, ways in kernel_peers.kernels(10_000, torch.float32, 0.3, seed=0).items():
        assert next(iter(ways)) == OURS and len({way.flops for way in ways.values()}) == 1
        assert ways[OURS].bytes <= min(way.bytes for other, way in ways.items() if other != OURS), name


def test_a_measurement_times_everything_once_per_round(monkeypatch):
    monkeypatch.setattr(kernel_peers, "SIDES", {"cpu": 16, "cuda": 16})
    found = kernel_peers.measurement(10_000, "bf16", kept=0.3, rounds=2, seed=0)
    timings = [found.copy, found.product, *(each for ways in found.kernels.values() for each in ways.values())]
    assert all(len(each.seconds) == 2 and min(each.seconds) > 0 for each in timings)
    assert found.copy.bytes == 40_000 and found.product.flops == limits.product_flops(16)
    assert found.limits.bandwidth == 40_000 / found.copy.median and found.limits.rate == found.product.rate
