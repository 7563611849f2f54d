"""What a computation runs on and what it costs."""

import json
import time

import psutil
import pytest
import torch

from paperlib import measure


def test_the_device_is_the_gpu_if_there_is_one():
    assert measure.device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert measure.device_name().strip()


@pytest.mark.parametrize("asked", ["fp32", "bf16"])
def test_a_precision_that_was_asked_for_is_kept(asked):
    assert measure.precision(asked) == asked


@pytest.mark.parametrize(
    "gpu, gpu_bf16, avx512, amx, chosen",
    [
        (True, True, False, False, "bf16"),
        (True, False, True, True, "fp32"),
        (False, False, False, False, "fp32"),
        (False, False, True, False, "bf16"),
        (False, False, False, True, "bf16"),
    ],
)
def test_auto_is_bf16_where_the_hardware_multiplies_it(monkeypatch, gpu, gpu_bf16, avx512, amx, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: gpu_bf16)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert measure.precision("auto") == chosen


def test_the_environment_is_plain_json():
    told = measure.environment("fp32")
    assert told == json.loads(json.dumps(told))
    assert told["precision"] == "fp32" and told["threads"] == torch.get_num_threads()
    assert told["device"].startswith(measure.device().type)


def test_wall_time_runs_from_construction():
    meter = measure.Meter()
    time.sleep(0.05)
    first = meter.cost()["wall_seconds"]
    time.sleep(0.05)
    assert 0.05 <= first < 1 and meter.cost()["wall_seconds"] >= first + 0.05


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU the allocator's peak is told")
def test_peak_memory_is_at_least_what_the_process_holds_in_bytes():
    held, peak = psutil.Process().memory_info().rss, measure.peak_memory()
    # The kernel brings its high-water mark up to date in batches of pages.
    assert held - 2**20 <= peak < 100 * held
    assert measure.Meter().cost()["peak_memory_bytes"] >= peak


@pytest.mark.parametrize("start, end, joules", [(1000, 3500, 2.5), (None, 3500, None), (1000, None, None)])
def test_energy_is_a_difference_or_unknown(monkeypatch, start, end, joules):
    readings = iter([start, end])
    monkeypatch.setattr(measure, "_millijoules", lambda: next(readings))
    assert measure.Meter().cost()["energy_joules"] == joules


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may count its energy")
def test_without_a_gpu_energy_is_unknown():
    assert measure.Meter().cost()["energy_joules"] is None


def allocate(allocations):
    """Three parts, in megabytes of fp32: up to 4, up to 8 and back to 6, down to 2."""
    first = torch.empty(1_000_000)
    allocations.mark("one matrix")
    second = first.clone()
    del first
    third = torch.empty(500_000)
    allocations.mark("a copy in its place")
    del second
    allocations.mark("given back")
    return third


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU its allocator counts")
def test_allocations_are_counted_to_the_byte():
    with measure.Allocations() as allocations:
        kept = allocate(allocations)
    assert allocations.peak == {"one matrix": 4_000_000, "a copy in its place": 8_000_000, "given back": 6_000_000}
    assert allocations.held == {"one matrix": 4_000_000, "a copy in its place": 6_000_000, "given back": kept.nbytes}


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU its allocator counts")
def test_what_was_there_before_counts_for_nothing():
    before = torch.empty(1_000_000)
    with measure.Allocations() as allocations:
        before.add_(1)
        allocations.mark("in place")
    assert allocations.peak["in place"] < 100 and allocations.held == {"in place": 0}


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU its allocator counts")
def test_temporaries_inside_an_operation_and_in_the_backward_pass_are_seen():
    """x x is saved and freed by the engine; the gradient of a square takes as much again."""
    with measure.Allocations() as allocations:
        x = torch.ones(1000, requires_grad=True)
        x.square().sum().backward()
        allocations.mark("done")
    assert allocations.held["done"] == 2 * x.nbytes
    assert allocations.peak["done"] >= 3 * x.nbytes
