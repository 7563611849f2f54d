"""Table 3 from footprints and step costs, on numbers made up."""

from paperlib.dps import memory, real_size

GIB = memory.GIB


def footprint(method, stage_one, selection, reference_dtypes=False):
    return {"method": method, "reference_dtypes": reference_dtypes, "stage_one": stage_one, "selection": selection}


def measured(*batches, growth=0):
    """Vanilla takes a GiB a row; DPS Dense four more, in published types eight more and ``growth`` a row at the selection step."""
    return real_size.rows(
        (
            batch,
            [
                footprint("vanilla", batch * GIB, batch * GIB),
                footprint("dps_dense", (batch + 3) * GIB, (batch + 4) * GIB),
                footprint("dps_dense", (batch + 4) * GIB, (batch + 8 + growth * batch) * GIB, reference_dtypes=True),
            ],
        )
        for batch in batches
    )


def test_a_row_tells_the_peak_of_a_moment_and_what_it_is_above_vanillas():
    found = measured(16)
    assert len(found) == 6
    row = {"method": "dps_dense", "version": "ours", "moment": memory.SELECTION, "batch size": 16}
    assert found[3] == {**row, "peak": 20 * GIB, "extra": 4 * GIB}


def test_the_peak_is_that_of_the_worst_moment_and_one_version_stands_for_both():
    found = real_size.peaks(measured(16, 32))
    assert found["dps_dense", "ours", 16] == 20 and found["dps_dense", "published", 32] == 40
    assert found["vanilla", "published", 16] == found["vanilla", "ours", 16] == 16


def test_an_extra_that_does_not_grow_is_fixed_and_falls_in_percent():
    found = real_size.extras(measured(32, 16), tracked=GIB)
    assert found["dps_dense", "ours"] == real_size.Extra([4.0, 4.0], [25.0, 12.5])
    assert all(each.fixed and each.falling for each in found.values())


def test_an_extra_that_grows_is_not_fixed():
    found = real_size.extras(measured(16, 32, growth=1), tracked=GIB)["dps_dense", "published"]
    assert not found.fixed and found.bytes == [24.0, 40.0]
    assert not real_size.Extra([4.0, 4.0], [12.5, 12.5]).falling


def test_step_times_are_medians_at_the_stages_of_rte():
    ratios = {"vanilla": {"at us": [1.0, 1.0], "mean": [9.0]}, "dps_mix": {"at us": [1.3, 1.1, 1.2], "mean": [9.0]}}
    assert real_size.step_times(16, ratios) == {("vanilla", 16): 1.0, ("dps_mix", 16): 1.2}
