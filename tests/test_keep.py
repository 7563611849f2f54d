"""What may be kept in the repository, and that all of it is copied or nothing."""

import json

import pytest

from paperlib import code, keep, parameters, paths, plan, records
from paperlib.errors import InputError

FOOTPRINT, HERE = "runs/footprint", "a" * 40


@pytest.fixture(autouse=True)
def checkout(workspace, monkeypatch):
    """``checkout(commit, changed)``: what git says of the tree here; at first a commit without changes."""

    def set_to(commit=HERE, changed=False):
        monkeypatch.setattr(records, "git_state", lambda: (commit, changed))

    set_to()
    return set_to


def measured(notebook=FOOTPRINT, results=None, day=1, sha="b" * 40, dirty=False, code_sha=None, **given):
    """Leave a record as if the notebook had run, on a day, at a commit."""
    values = parameters.resolve(notebook, given).model_dump()
    told = {"device": "cuda: H100", "created": f"2026-01-0{day}T00:00:00+00:00", "git_sha": sha, "git_dirty": dirty}
    told |= {"code_sha256": code_sha or code.fingerprint(notebook), "command": "paperlib run it", "versions": {}}
    each = records.Record(notebook=notebook, parameters=values, results=results or {"day": day}, provenance=told)
    path = records.path_of(notebook, values)
    records.write(path.parent.with_name(f"{path.parent.name}-{day}") / path.name, each)
    return each


def kept() -> list[records.Record]:
    return [records.read(path) for path in sorted(paths.reference().rglob("*.json"))]


def test_records_of_a_notebook_are_copied_with_their_commit():
    each = measured()
    (path,) = keep.keep([FOOTPRINT], {})
    (copy,) = records.reference(FOOTPRINT)
    assert path == records.reference_path_of(each)
    assert copy == each.model_copy(update={"provenance": {**each.provenance, "commit": "b" * 40}})


def test_a_profile_keeps_its_runs_and_what_it_times_and_nothing_else():
    smoke = plan.Plan("smoke", {})
    jobs = [*smoke.run_jobs("dps/f_memory"), smoke.section_job("performance/kernels")]
    wanted = [measured(job.notebook, **job.parameters) for job in jobs]
    section = smoke.section_job("dps/f_memory")
    measured(section.notebook, **section.parameters)
    measured(FOOTPRINT, day=2, backbone="tiny-t5")
    assert len(keep.keep(["smoke"], {})) == len(wanted) == 3
    assert {json.dumps(each.parameters) for each in kept()} == {json.dumps(each.parameters) for each in wanted}


def test_a_section_that_shows_kept_records_of_itself_is_kept_with_its_profile():
    job = plan.Plan("smoke", {}).section_job("lets/a2_hyperparameters")
    measured(job.notebook, **job.parameters)
    assert [path.parent.name for path in keep.keep(["smoke"], {})] == ["a2_hyperparameters"]


def test_the_newest_of_one_device_and_parameters_is_kept():
    for day in (2, 3, 1):
        measured(day=day)
    assert len(keep.keep([FOOTPRINT], {})) == 1
    assert [each.results for each in kept()] == [{"day": 3}]
    measured(day=4)
    keep.keep([FOOTPRINT], {})
    assert [each.results for each in kept()] == [{"day": 4}], "in the older one's place"


def test_parameters_choose():
    measured(batch_size=16), measured(batch_size=32)
    keep.keep([FOOTPRINT], {"batch_size": 32})
    assert [each.parameters["batch_size"] for each in kept()] == [32]
    with pytest.raises(InputError, match="no record of runs/footprint and these parameters in .*: nothing to keep"):
        keep.keep([FOOTPRINT], {"batch_size": 64})
    with pytest.raises(InputError, match=r"runs/footprint has no parameter 'batchsize' \(did you mean 'batch_size'"):
        keep.keep([FOOTPRINT], {"batchsize": 64})


@pytest.mark.parametrize("made", [{"dirty": True}, {"sha": records.NO_COMMIT}], ids=["changed", "outside git"])
def test_what_belongs_to_no_commit_of_its_own_may_belong_to_the_one_here(made):
    each = measured(**made)
    keep.keep([FOOTPRINT], {})
    assert [copy.provenance for copy in kept()] == [{**each.provenance, "commit": HERE}]


@pytest.mark.parametrize(
    "made, tree, told",
    [
        ({"dirty": True}, (HERE, True), "made with uncommitted changes"),
        ({"dirty": True, "code_sha": "0" * 64}, (HERE, False), "made with uncommitted changes"),
        ({"sha": records.NO_COMMIT}, (records.NO_COMMIT, False), "made outside a git checkout"),
    ],
    ids=["changes here too", "other code", "no git at all"],
)
def test_a_record_that_belongs_to_no_commit_is_refused_and_nothing_is_copied(checkout, made, tree, told):
    checkout(*tree)
    measured(batch_size=16)
    measured(batch_size=32, **made)
    with pytest.raises(InputError, match=f"runs/footprint, 2026-01-01.*: {told}.*paperlib run it") as error:
        keep.keep([FOOTPRINT], {})
    assert "\n" not in str(error.value) and kept() == []


def test_a_large_record_is_refused_and_nothing_is_copied():
    measured(batch_size=16)
    measured(batch_size=32, results={"curve": ["x" * 100] * 2000})
    with pytest.raises(InputError, match=r"runs/footprint, 2026-01-01.*: 2\d\d,\d{3} bytes; .* at most 200,000"):
        keep.keep([FOOTPRINT], {})
    assert kept() == []


def test_git_leaves_results_alone_but_not_what_is_kept(monkeypatch):
    ignored = (paths.ROOT / ".gitignore").read_text().splitlines()
    monkeypatch.delenv("PAPERLIB_REFERENCE")
    assert paths.reference() == paths.ROOT / "results" / "reference"
    assert ignored.index("results/*") < ignored.index("!results/reference/")
