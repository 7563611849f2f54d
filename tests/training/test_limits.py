"""What the machine reaches at most."""

import pytest
import torch

from paperlib import measure
from paperlib.training import limits
from paperlib.training.limits import Limits

TINY = {"cpu": 64, "cuda": 64}


def test_memory_limits_below_the_ridge_and_arithmetic_above_it():
    machine = Limits(bandwidth=10.0, rate=40.0)
    assert machine.ridge == 4
    assert [machine.roof(intensity) for intensity in (1, 4, 100)] == [10, 40, 40]


def test_a_copy_copies_and_a_product_multiplies():
    copied = limits.copy(5, torch.bfloat16)
    assert torch.equal(copied(), copied.args[0]) and copied().dtype == torch.bfloat16
    product = limits.product(3, torch.float32)
    torch.testing.assert_close(product(), product.args[0] @ product.args[1])
    assert limits.product_flops(3) == 54


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_limits_are_medians_of_what_was_moved_and_multiplied(monkeypatch, precision):
    monkeypatch.setattr(limits, "COPIED", TINY)
    monkeypatch.setattr(limits, "SIDES", TINY)
    seen = {}

    def interleaved(turns, rounds, cover):
        seen.update({name: turn() for name, turn in turns.items()}, rounds=rounds)
        return {"copy": [1.0, 2.0, 9.0], "product": [4.0, 1.0, 0.5]}

    monkeypatch.setattr(limits, "interleaved", interleaved)
    found = limits.limits(precision, rounds=3)
    assert (found.bandwidth, found.rate) == (2 * 64 / 2.0, 2 * 64**3 / 1.0)
    assert seen["copy"].nbytes == 64 and seen["product"].shape == (64, 64) and seen["rounds"] == 3
    assert seen["copy"].dtype == seen["product"].dtype == limits.DTYPES[precision]
    assert seen["copy"].device.type == measure.device().type


def test_this_machine_has_limits(monkeypatch):
    monkeypatch.setattr(limits, "SIDES", TINY)
    found = limits.limits("fp32", rounds=1)
    assert found.bandwidth > 0 and found.rate > 0
