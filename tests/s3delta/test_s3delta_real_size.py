"""Table 5's ratios from a record of search costs, on numbers made up."""

from paperlib.s3delta.real_size import StepCost


def test_time_is_the_median_of_rounds_and_memory_the_ratio_of_peaks():
    seconds = {"M, second": 0.6, "train lowest": 0.1, "L, second": 9.0}
    ratios = {"M, second": [6.0, 5.0, 9.0], "train lowest": [1.0, 1.0, 1.0]}
    peaks = {"M, second": 300, "train lowest": 200, "plain model": 1}
    assert StepCost.of(seconds, ratios, peaks) == StepCost(search=0.6, training=0.1, time=6.0, memory=1.5, rounds=3)
