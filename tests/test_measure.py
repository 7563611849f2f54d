"""What a computation runs on and what it costs."""

import json
import sys
import time
from types import SimpleNamespace

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


class Driver:
    """NVIDIA's management library with two cards, the second of which CUDA sees as its first; ``error`` is raised by what it names."""

    class NVMLError(Exception):
        pass

    def __init__(self, error=""):
        self.drawn, self.error, self.waited = {"GPU-first": 0, "GPU-second": 1000}, error, 0

    def _answer(self, function, value=None):
        if function == self.error:
            raise self.NVMLError(function)
        return value

    def nvmlInit(self):
        self._answer("init")

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return self._answer("handle", uuid)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return self._answer("energy", self.drawn[handle])


@pytest.fixture
def driven(monkeypatch):
    def by(driver):
        monkeypatch.setitem(sys.modules, "pynvml", driver)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: SimpleNamespace(uuid="second"))
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: setattr(driver, "waited", driver.waited + 1))
        return driver

    return by


def test_energy_is_that_of_the_card_in_use_between_two_moments(driven):
    driver = driven(Driver())
    energy = measure.Energy()
    driver.drawn = {"GPU-first": 10**6, "GPU-second": 3500}
    assert energy.joules() == 2.5
    assert driver.waited == 2, "work that was given before a moment belongs before it"


@pytest.mark.parametrize("error", ["init", "handle", "energy"])
def test_energy_is_unknown_where_the_driver_refuses(driven, error):
    driven(Driver(error))
    assert measure.Energy().joules() is None


def test_energy_is_unknown_where_one_of_the_moments_is(driven):
    driver = driven(Driver("energy"))
    energy = measure.Energy()
    driver.error = ""
    assert energy.joules() is None


def test_energy_is_unknown_without_the_binding(driven, monkeypatch):
    driven(Driver())
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert measure.Energy().joules() is None


def test_the_binding_names_what_is_asked_of_it():
    import pynvml

    assert issubclass(pynvml.NVMLError, Exception)
    for name in ("nvmlInit", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetTotalEnergyConsumption"):
        assert callable(getattr(pynvml, name))


def test_a_meter_tells_joules(monkeypatch):
    readings = iter([1000, 3500])
    monkeypatch.setattr(measure, "_millijoules", lambda: next(readings))
    assert measure.Meter().cost()["energy_joules"] == 2.5


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
