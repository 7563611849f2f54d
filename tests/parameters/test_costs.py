"""Parameters of the notebooks that measure what the methods cost."""

import pytest

from paperlib.errors import InputError
from paperlib.parameters import resolve


def test_the_methods_timed_are_all_or_some_with_vanilla():
    assert "vanilla" in resolve("performance/step_cost", {}).methods
    assert resolve("performance/step_cost", {"methods": []}).methods == []
    assert resolve("performance/step_cost", {"methods": ["vanilla", "dps_mix"]}).methods == ["vanilla", "dps_mix"]


@pytest.mark.parametrize("methods", [["dps_mix"], ["vanilla", "mixout", "mixout"]])
def test_methods_without_vanilla_or_twice_are_refused(methods):
    with pytest.raises(InputError, match="methods must name vanilla, and none twice, got " + ", ".join(methods)):
        resolve("performance/step_cost", {"methods": methods})


@pytest.mark.parametrize(
    "notebook, values, key",
    [
        ("performance/step_cost", {"methods": ["vanilla", "mixot"]}, "unknown method 'mixot' .did you mean 'mixout'"),
        ("performance/step_cost", {"stage_steps": 1}, "stage_steps"),
        ("runs/footprint", {"length": 1}, "length"),
        ("runs/footprint", {"backbone": "bert-huge"}, "unknown backbone 'bert-huge'"),
        ("dps/f_memory", {"backbone": "bert-huge"}, "unknown backbone 'bert-huge'"),
    ],
)
def test_mistaken_values_are_refused_by_name(notebook, values, key):
    with pytest.raises(InputError, match=key):
        resolve(notebook, values)
