"""Records: where they lie, that they appear whole or not at all, and what they say."""

import json
import shlex
from pathlib import Path

import pytest

from paperlib import cli, code, parameters, paths, records
from paperlib.errors import InputError
from paperlib.parameters import profiles

RUN = "runs/finetune"
DEFAULTS = parameters.resolve(RUN, {}).model_dump()
OTHER = {
    "task": "cola", "source": "hub", "data_dir": "x", "backbone": "tiny-bert", "protocol": "s3delta", "train_rows": 5, "method": "dps_dense",
    "preset": "paper", "p": 0.4, "update_ratio": 0.1, "seed": 1, "epochs": 2, "batch_size": 8, "accumulation": 2, "learning_rate": 1e-5,
    "selection": "global", "noise": "normal", "sigma": 1e-4, "strength": 0.5, "reinit_layers": 2, "steps": 3, "warmup_steps": 1,
    "decay_towards": "pretrained", "layer_decay": 0.9, "layer_decay_form": "revisit",
    "warmup_ratio": 0.2, "weight_decay": 0.0, "clip_norm": 2.0, "dropout": 0.0, "precision": "fp32", "checkpoint_seconds": 1.0,
}  # fmt: skip


def record(**fields) -> records.Record:
    return records.Record(**{"notebook": RUN, "parameters": DEFAULTS, "results": {"x": 1}, **fields})


def write(notebook, given, runs=()) -> Path:
    values = parameters.resolve(notebook, given).model_dump()
    path = records.path_of(notebook, values)
    records.write(path, record(notebook=notebook, parameters=values, runs=list(runs)))
    return path


# --- where


def test_the_same_parameters_and_code_give_the_same_path(workspace):
    path = records.path_of(RUN, DEFAULTS)
    assert path == records.path_of(RUN, dict(reversed(DEFAULTS.items())))
    assert path.parent.parent == workspace / "results" / "runs" / "finetune"
    assert path.parent.name.startswith("rte-vanilla-minilm-diagnostics-seed0-")


@pytest.mark.parametrize("name", DEFAULTS)
def test_any_other_parameter_gives_another_path(workspace, name):
    assert OTHER[name] != DEFAULTS[name]
    assert records.path_of(RUN, DEFAULTS | {name: OTHER[name]}) != records.path_of(RUN, DEFAULTS)


def test_other_code_gives_another_path(workspace, monkeypatch):
    before = records.path_of(RUN, DEFAULTS)
    monkeypatch.setattr(code, "fingerprint", lambda notebook: "0" * 64)
    assert records.path_of(RUN, DEFAULTS) != before


def test_a_section_moves_when_the_runs_it_reads_do(workspace, monkeypatch):
    given = parameters.resolve("dps/a_case_study", {"profile": "smoke"}).model_dump()
    before, real = records.path_of("dps/a_case_study", given), code.fingerprint
    monkeypatch.setattr(code, "fingerprint", lambda notebook: real(notebook) + "edited" * notebook.startswith("runs/"))
    assert records.path_of("dps/a_case_study", given) != before


def test_the_scoreboard_moves_when_a_section_does(workspace, monkeypatch):
    given = parameters.resolve("overview", {"profile": "smoke"}).model_dump()
    before, real = records.path_of("overview", given), code.fingerprint
    monkeypatch.setattr(code, "fingerprint", lambda notebook: real(notebook) + "edited" * notebook.startswith("lets/"))
    assert records.path_of("overview", given) != before


def test_the_name_of_a_local_backbone_is_its_folder(workspace):
    path = records.path_of(RUN, DEFAULTS | {"backbone": "/models/my bert/"})
    assert path.parent.name.startswith("rte-vanilla-my bert-diagnostics-seed0-")


# --- whole or not at all


def test_what_is_written_is_read_again(tmp_path):
    kept = record(verdicts=[{"id": "a", "interval": [0.1, 0.2]}], cost={"energy_joules": None}, provenance={"é": "ü"})
    records.write(tmp_path / "new" / "record.json", kept)
    assert records.read(tmp_path / "new" / "record.json") == kept
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["record.json"]


def test_an_interrupted_write_leaves_nothing_that_reads_as_a_record(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    path = tmp_path / "record.json"
    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        records.write(path, record())
    assert not path.exists()


def test_an_interrupted_overwrite_leaves_the_old_record(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    records.write(path, record())
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        records.write(path, record(results={"x": 2}))
    assert records.read(path).results == {"x": 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, -float("inf")]])
def test_what_json_cannot_say_is_refused_and_leaves_no_file(tmp_path, value):
    with pytest.raises(ValueError, match="JSON"):
        records.write(tmp_path / "record.json", record(results={"x": value}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text, where",
    [
        ("{", "no JSON object"),
        ("[]", "no JSON object"),
        ('{"notebook": "a", "parameters": {}}', "results"),
        ('{"notebook": "a", "parameters": {}, "results": {}, "verdict": []}', "verdict"),
        ('{"schema_version": 2, "notebook": "a", "parameters": {}, "results": {}}', "schema_version"),
    ],
)
def test_a_file_that_is_no_record_is_told_in_one_line(tmp_path, text, where):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        records.read(path)
    assert str(error.value) == f"{path}: not a record of schema 1 ({where}); delete it and run the notebook again"


# --- begin and finish


def test_begin_validates_and_prints_the_context(workspace, capsys):
    run = records.begin(
        "lets/a1_metrics", {**parameters.resolve("lets/a1_metrics", {}).model_dump(), "unrelated": object()}
    )
    shown = capsys.readouterr().out
    assert shown.startswith("lets/a1_metrics at ") and "length=128 longer=512" in shown
    assert run.parameters.frozen == 12
    assert not workspace.joinpath("results").exists(), "nothing is written before the end"


def test_begin_refuses_what_a_notebook_was_wrongly_given():
    values = {**parameters.resolve("lets/a1_metrics", {}).model_dump(), "length": "long", "frozen": 25}
    with pytest.raises(InputError, match="lets/a1_metrics: length: .*'long'.*; frozen: .*25"):
        records.begin("lets/a1_metrics", values)


def test_finish_writes_what_was_found_and_where_it_came_from(workspace, capsys):
    values = parameters.resolve("lets/a1_metrics", {"length": 64}).model_dump()
    run = records.begin("lets/a1_metrics", values)
    run.finish({"x": 1}, verdicts=[{"id": "a"}], cost={"peak_memory_bytes": 5}, environment={"device": "cpu: x"})
    found = records.read(records.path_of("lets/a1_metrics", values))
    assert found.parameters == values and found.results == {"x": 1} and found.verdicts == [{"id": "a"}]
    assert found.cost.keys() == {"wall_seconds", "peak_memory_bytes"} and 0 <= found.cost["wall_seconds"] < 60
    told = found.provenance
    assert {"git_sha", "git_dirty", "notebook_sha256", "code_sha256", "python", "platform", "created"} <= told.keys()
    assert told["device"] == "cpu: x" and told["versions"]["torch"].startswith("2.")
    assert f"record: {records.relative(run.path)}" in capsys.readouterr().out


def test_the_command_in_a_record_leads_back_to_it(workspace, monkeypatch):
    values = DEFAULTS | {"task": "cola", "learning_rate": 1e-5, "train_rows": 7}
    asked = []
    monkeypatch.setattr("paperlib.runs.execute", lambda notebook, given, *_, **__: asked.append((notebook, given)))
    program, *arguments = shlex.split(records.command(RUN, values))
    assert program == "paperlib" and cli.main(arguments) == 0
    assert asked == [(RUN, values)]


def test_without_git_a_record_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    records.git_state.cache_clear()
    try:
        assert records.git_state() == (records.NO_COMMIT, False)
    finally:
        records.git_state.cache_clear()


# --- what a section reads


def opened(**given):
    return records.begin(
        "dps/a_case_study", parameters.resolve("dps/a_case_study", {"profile": "smoke", **given}).model_dump()
    )


def test_a_section_finds_its_records_and_names_the_missing_ones(workspace, capsys):
    run = opened()
    jobs = profiles.run_jobs("smoke", "dps/a_case_study", {})
    done = [write(job.notebook, job.parameters) for job in jobs[:3]]
    found, missing = run.records()
    assert [each.parameters["seed"] for each in found] == [0, 1, 0] and missing == jobs[3:]
    run.tell_missing(missing)
    told = capsys.readouterr().out
    assert "1 runs are missing; this makes them:\n  paperlib reproduce smoke --only dps/a_case_study\n" in told
    assert "missing: task rte, method dps_dense, seed 1, backbone minilm, source diagnostics" in told
    run.finish({})
    assert records.read(run.path).runs == [records.relative(path) for path in done]


def test_nothing_is_told_when_nothing_is_missing(workspace, capsys):
    run = opened()
    capsys.readouterr()
    run.tell_missing([])
    assert capsys.readouterr().out == ""


def test_a_run_that_reads_another_names_the_command_that_makes_it(workspace):
    given = parameters.resolve("runs/delta_tuning", {"placement": "searched"}).model_dump()
    run = records.Run(
        "runs/delta_tuning", parameters.validated(parameters.runs.DeltaTuning, "", given), workspace / "x"
    )
    with pytest.raises(InputError) as error:
        run.required()
    told = str(error.value)
    assert told.startswith("runs/delta_tuning needs a run of runs/search that has no record yet; this makes it: ")
    asked = cli._parser().parse_args(shlex.split(told.partition("this makes it: ")[2])[1:])
    (job,) = records.jobs_behind("runs/delta_tuning", given)
    assert (asked.notebook, json.loads(asked.json)) == (job.notebook, job.parameters)
    path = write(job.notebook, job.parameters)
    assert [each.notebook for each in run.required()] == [records.read(path).notebook]


def test_the_command_for_missing_runs_repeats_the_readers_choice(workspace, tmp_path):
    command = opened(source="directory", data_dir=str(tmp_path), backbone="tiny-bert").reproduce_command
    assert (
        command
        == f"paperlib reproduce smoke --only dps/a_case_study --source directory --data {tmp_path} --backbone tiny-bert"
    )


def test_a_section_is_current_until_a_run_it_reads_comes_changes_or_goes(workspace):
    run = opened()
    given = run.parameters.model_dump()

    def current():
        return records.current(run.path, "dps/a_case_study", given)

    assert not current(), "nothing is there yet"
    run.finish({})
    assert current(), "no run is needed to say that all are missing"
    first, second = (
        write(job.notebook, job.parameters) for job in profiles.run_jobs("smoke", "dps/a_case_study", {})[:2]
    )
    assert not current(), "runs have come"
    run.finish({})
    assert current()
    write(RUN, json.loads(first.read_text())["parameters"])
    assert not current(), "a run is younger"
    run.finish({})
    second.unlink()
    assert not current(), "a run has gone"


def test_a_run_is_current_as_soon_as_it_is_there(workspace):
    assert not records.current(records.path_of(RUN, DEFAULTS), RUN, DEFAULTS)
    assert records.current(write(RUN, {}), RUN, DEFAULTS)


# --- kept records: made elsewhere, never the reader's own


GPU, CPU = "cuda: NVIDIA H100 80GB HBM3", "cpu: x"
FOOTPRINT = "runs/footprint"


def kept(device=GPU, day=1, **given) -> records.Record:
    """A record as the repository keeps it."""
    values = parameters.resolve(FOOTPRINT, given).model_dump()
    versions = {"torch": "2.12.0", "transformers": "5.1.0"}
    told = {"device": device, "created": f"2026-01-0{day}T00:00:00+00:00", "commit": "c" * 40, "versions": versions}
    each = records.Record(notebook=FOOTPRINT, parameters=values, results={}, provenance=told)
    records.write(records.reference_path_of(each), each)
    return each


def test_kept_records_have_a_readable_place_for_each_device_and_parameters(workspace):
    path = records.reference_path_of(kept())
    assert path.parent == workspace / "kept" / "runs" / "footprint"
    assert path.name.startswith("nvidia-h100-80gb-hbm3-bert-large-config-seed0-") and path.suffix == ".json"
    assert records.reference_path_of(kept(day=2)) == path, "a newer measurement takes the place"
    assert len({path, *(records.reference_path_of(each) for each in (kept(CPU), kept(batch_size=32)))}) == 3


def test_kept_records_are_found_by_the_parameters_that_are_asked_for_newest_first(workspace):
    assert records.reference(FOOTPRINT) == []
    old, new, small = kept(CPU, day=1), kept(day=2), kept(day=3, backbone="tiny-bert")
    assert records.reference(FOOTPRINT, backbone="bert-large-config") == [new, old]
    assert records.reference(FOOTPRINT, batch_size=16) == [small, new, old]
    assert records.reference(FOOTPRINT, batch_size=8) == []
    with pytest.raises(InputError, match="runs/footprint has no parameter 'batch'"):
        records.reference(FOOTPRINT, batch=16)


def test_kept_records_are_no_records_of_the_reader(workspace):
    kept()
    assert not records.path_of(FOOTPRINT, parameters.resolve(FOOTPRINT, {}).model_dump()).is_file()
    run = opened()
    assert run.records()[0] == []


def test_alike_are_those_of_one_device_that_differ_in_one_parameter_with_a_gpu_first(workspace):
    large, small = kept(batch_size=32), kept(batch_size=16)
    kept(CPU, day=9), kept(batch_size=16, precision="fp32"), kept("cuda: other", batch_size=8)
    newest = [kept(day=8, batch_size=16, length=64), kept(day=7, length=64, batch_size=8)]
    found = [large, small, *newest, kept(CPU, day=9)]
    assert records.alike(found, but="batch_size") == [small, large]
    assert records.alike(records.reference(FOOTPRINT), but="batch_size") == newest[::-1]
    assert records.alike([], but="batch_size") == []


def test_a_page_names_the_kept_records_it_shows_and_lists_them(workspace, capsys):
    each = kept()
    run = opened()
    assert run.reference(FOOTPRINT, batch_size=16) == run.reference(FOOTPRINT) == [each]
    told = capsys.readouterr().out
    assert "kept from a run of runs/footprint at real size:\n  cuda: NVIDIA H100 80GB HBM3, 2026-01-01, commit " in told
    assert f"commit {'c' * 12}, torch 2.12.0, transformers 5.1.0\n" in told
    run.finish({})
    found = records.read(run.path)
    assert found.provenance["reference"] == [f"runs/footprint/{records.reference_path_of(each).name}"]
    assert found.runs == [], "they are none of the reader's runs"


def test_where_none_is_kept_the_page_says_what_makes_it(workspace, capsys):
    assert opened().reference(FOOTPRINT, batch_size=16) == []
    told = capsys.readouterr().out
    assert told.endswith("a GPU this makes it:\n  paperlib reproduce cost && paperlib keep cost\n")


def test_paths_in_records_are_relative_to_the_results_folder(workspace):
    assert records.relative(paths.results() / "runs" / "x" / "record.json") == "runs/x/record.json"
