"""The command line is strict: each mistake gives one line on stderr, exit code 2, and nothing written."""

import json
import shlex

import pytest

from paperlib import cli, grid, keep, pages, plan, runs
from paperlib.errors import InputError
from paperlib.parameters import profiles

RUN = ["run", "runs/finetune"]


def one_line(capsys, arguments, code=2) -> str:
    """The message of a command that must fail with ``code``."""
    assert cli.main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("paperlib: ")
    return line


@pytest.fixture
def refused(workspace, capsys):
    """``refused(*arguments)``: the one line, after making sure that nothing was written."""

    def message(*arguments):
        before = sorted(workspace.rglob("*"))
        line = one_line(capsys, list(arguments))
        assert sorted(workspace.rglob("*")) == before
        return line

    return message


@pytest.mark.parametrize(
    "arguments, told",
    [
        ([*RUN, "-p", "sed", "1"], "runs/finetune: unknown parameter 'sed' (did you mean 'seed'?); known: "),
        ([*RUN, "-p", "seed", "first"], "seed: input should be a valid integer (got 'first')"),
        ([*RUN, "-p", "seed", "1.5"], "seed: input should be a valid integer (got 1.5)"),
        ([*RUN, "-p", "epochs", "true"], "epochs: input should be a valid integer (got True)"),
        ([*RUN, "-p", "task", "3"], "task: input should be a valid string (got 3)"),
        ([*RUN, "-p", "epochs", "0"], "epochs: input should be greater than or equal to 1 (got 0)"),
        ([*RUN, "-p", "p", "2"], "p: input should be less than or equal to 1 (got 2)"),
        ([*RUN, "-p", "clip_norm", ".inf"], "clip_norm: input should be a finite number"),
        ([*RUN, "-p", "learning_rate", ".nan"], "learning_rate: input should be"),
        ([*RUN, "-p", "task", "rtee"], "unknown task 'rtee' (did you mean 'rte'?); known: cola, sst2"),
        ([*RUN, "-p", "source", "disk"], "source: input should be 'hub', 'directory' or 'diagnostics' (got 'disk')"),
        ([*RUN, "-p", "backbone", "minilmm"], "unknown backbone 'minilmm' (did you mean 'minilm'?); give one of"),
        ([*RUN, "-p", "source", "directory"], "source 'directory' needs data_dir: the folder that holds glue/"),
        ([*RUN, "--json", '{"source": "directory", "data_dir": "nowhere"}'], "data_dir 'nowhere' is not a folder"),
        ([*RUN, "--json", "{seed: 1}"], "--json cannot be read: Expecting property name"),
        ([*RUN, "--json", "[1]"], "--json takes an object such as"),
        ([*RUN, "--json", '{"seed": NaN}'], "seed: input should be"),
        ([*RUN, "-p", "seed", "[1"], "-p seed: '[1' is not YAML (expected"),
        ([*RUN, "-p", "seed", "a: b: c"], "-p seed: 'a: b: c' is not YAML"),
        ([*RUN, "-p", "seed", "!!python/object/apply:os.getcwd []"], "-p seed: "),
        ([*RUN, "-p", "a\nb", "1"], r"unknown parameter 'a\nb'"),
        ([*RUN, "-p", "seed"], "argument -p: expected 2 arguments; see paperlib run --help"),
        ([*RUN, "--threads", "-1"], "argument --threads: '-1' is not a whole number of at least 0"),
        (["run", "runs/finetun"], "unknown notebook 'runs/finetun'; known: dps/a_case_study"),
        (["run", "../README"], "unknown notebook '../README'; known: "),
        (["run"], "the following arguments are required: notebook; see paperlib run --help"),
        (
            ["reproduce", "laptp"],
            f"unknown profile 'laptp' (did you mean 'laptop'?); known: {', '.join(profiles.names())}",
        ),
        (["reproduce", "smoke", "--only", "dps/f"], "profile 'smoke' has no section 'dps/f'"),
        (["reproduce", "smoke", "--only", "runs/finetune"], "profile 'smoke' has no section 'runs/finetune'"),
        (["reproduce", "smoke", "--jobs", "-1"], "argument --jobs: '-1' is not a whole number of at least 0"),
        (["reproduce", "smoke", "--jobs", "two"], "argument --jobs: 'two' is not a whole number"),
        (["reproduce", "smoke", "--grid", "pbs"], "unknown grid profile 'pbs'"),
        (["reproduce", "smoke", "--source", "disk"], "argument --source: invalid choice: 'disk'"),
        (["reproduce", "smoke", "--source", "directory"], "source 'directory' needs data_dir"),
        (["reproduce", "smoke", "--source", "directory", "--data", "nowhere"], "data_dir 'nowhere' is not a folder"),
        (["reproduce", "smoke", "--data", "."], "--data DIR goes with --source directory"),
        (["reproduce", "smoke", "--source", "hub", "--data", "."], "--data DIR goes with --source directory"),
        (["reproduce", "smoke", "--backbone", "bert"], "unknown backbone 'bert'"),
        (["reproduce", "smoke", "--backbone", "./nowhere"], "unknown backbone './nowhere'"),
        (["keep"], "the following arguments are required: NAME; see paperlib keep --help"),
        (["keep", "cots"], "unknown notebook 'cots'; known: dps/a_case_study"),
        (["keep", "smoke", "runs/footprint"], "no record of smoke, runs/footprint in "),
        (["keep", "runs/footprint", "-p", "seed", "[1"], "-p seed: '[1' is not YAML"),
        (["replicate"], "invalid choice: 'replicate'"),
        ([], "the following arguments are required: COMMAND; see paperlib --help"),
        (["claims", "--yaml"], "unrecognized arguments: --yaml; see paperlib --help"),
    ],
    ids=lambda value: " ".join(value).replace("\n", "\\n") if isinstance(value, list) else "",
)
def test_a_mistake_gives_one_line_and_exit_code_2(refused, arguments, told):
    assert told in refused(*arguments)


def test_a_folder_without_weights_in_safetensors_is_no_mistake_of_the_name(workspace, tmp_path, monkeypatch):
    """Whether a folder holds a model is for the run to say; that it is one is known at once."""
    asked = []
    monkeypatch.setattr(
        runs, "_papermill", lambda *_: asked.append(_) or (_ for _ in ()).throw(InputError("no config.json"))
    )
    assert cli.main([*RUN, "-p", "backbone", str(tmp_path)]) == 2
    assert len(asked) == 1


def test_values_are_yaml_and_win_over_json(workspace, monkeypatch):
    given = {}
    monkeypatch.setattr(runs, "execute", lambda notebook, values, threads, progress: given.update(values))
    pairs = [
        "-p",
        "learning_rate",
        "1e-4",
        "-p",
        "seed",
        "3",
        "-p",
        "seeds",
        "[1, 2]",
        "-p",
        "task",
        "rte",
        "-p",
        "on",
        "no",
    ]
    assert cli.main([*RUN, "--json", '{"seed": 1, "epochs": 2}', *pairs]) == 0
    assert given == {"seed": 3, "epochs": 2, "learning_rate": 1e-4, "seeds": [1, 2], "task": "rte", "on": False}


def test_run_prints_the_path_of_the_record(workspace, monkeypatch, capsys):
    monkeypatch.setattr(runs, "execute", lambda *_, **__: workspace / "record.json")
    assert cli.main(RUN) == 0
    assert capsys.readouterr().out == f"{workspace / 'record.json'}\n"


def test_what_ran_and_failed_exits_with_1(workspace, monkeypatch, capsys):
    def failing(*_, **__):
        raise runs.RunFailed("runs/finetune failed: ValueError: no; traceback in x")

    monkeypatch.setattr(runs, "execute", failing)
    assert one_line(capsys, RUN, code=1) == "paperlib: runs/finetune failed: ValueError: no; traceback in x"


def test_reproduce_tells_each_record_that_did_not_come_and_still_renders(workspace, monkeypatch, capsys):
    monkeypatch.setattr(grid, "reproduce", lambda *_: [workspace / "results" / "runs" / "a-1" / "record.json"])
    monkeypatch.setattr(pages, "render", lambda chosen: workspace / "index.html")
    assert cli.main(["reproduce", "smoke"]) == 1
    captured = capsys.readouterr()
    assert captured.out == f"report: {workspace / 'index.html'}\n"
    assert "no record came from a-1" in captured.err and "snakemake.log" in captured.err


def failed_run(workspace, name, message, code):
    folder = workspace / "results" / "runs" / name
    folder.mkdir(parents=True)
    (folder / grid.LOG).write_text(f"Traceback ...\npaperlib: {message}\nexit code {code}\n")
    return folder / "record.json"


def test_reproduce_tells_bad_input_once_with_exit_code_2_and_leaves_no_folder(workspace, monkeypatch, capsys):
    failed = [failed_run(workspace, name, "train.tsv, line 3: no label", 2) for name in ("a", "b")]
    monkeypatch.setattr(grid, "reproduce", lambda *_: failed)
    monkeypatch.setattr(pages, "render", lambda chosen: "")
    assert cli.main(["reproduce", "smoke"]) == 2
    assert capsys.readouterr().err == "paperlib: train.tsv, line 3: no label (2 times)\n"
    assert not any(path.parent.exists() for path in failed)


def test_reproduce_exits_with_1_when_anything_but_the_input_was_wrong(workspace, monkeypatch, capsys):
    failed = [failed_run(workspace, "a", "no label", 2), failed_run(workspace, "b", "runs/b failed: see b", 1)]
    monkeypatch.setattr(grid, "reproduce", lambda *_: failed)
    monkeypatch.setattr(pages, "render", lambda chosen: "")
    assert cli.main(["reproduce", "smoke"]) == 1
    assert failed[1].parent.exists(), "what failed keeps its traceback"


def test_reproduce_works_on_the_sections_asked_for_with_as_many_jobs(workspace, monkeypatch):
    asked = []
    monkeypatch.setattr(grid, "reproduce", lambda chosen, sections, jobs, *_: asked.append((sections, jobs)) or [])
    monkeypatch.setattr(pages, "render", lambda chosen: "")
    assert (
        cli.main(["reproduce", "smoke", "--only", "lets/a1_metrics", "--only", "dps/a_case_study", "--jobs", "3"]) == 0
    )
    assert cli.main(["reproduce", "smoke"]) == 0
    sections, jobs = asked[1]
    assert asked[0] == (["lets/a1_metrics", "dps/a_case_study"], 3)
    assert sections == list(profiles.load("smoke").sections) and jobs == grid.slots() >= 1


def test_reproduce_lists_the_commands_that_do_the_same_without_snakemake(workspace, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(runs, "execute", lambda notebook, given, *_, **__: asked.append((notebook, given)))
    assert cli.main(["reproduce", "smoke", "--only", "dps/f_memory", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not (workspace / "results").exists(), "nothing runs"
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "paperlib" and cli.main(arguments) == 0
    jobs = plan.Plan("smoke", {}).unfinished(["dps/f_memory"])
    assert asked == [(job.notebook, job.parameters) for job in jobs] and len(jobs) == 3


def test_keep_tells_what_it_kept(workspace, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(keep, "keep", lambda *given: asked.append(given) or [workspace / "kept" / "a.json"])
    assert cli.main(["keep", "cost", "runs/footprint", "-p", "batch_size", "32"]) == 0
    assert asked == [(["cost", "runs/footprint"], {"batch_size": 32})]
    assert capsys.readouterr().out == f"kept: {workspace / 'kept' / 'a.json'}\n"


def test_an_interruption_says_how_to_continue(workspace, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(grid, "reproduce", interrupted)
    assert one_line(capsys, ["reproduce", "smoke"], code=130).endswith("run the same command again to continue")


@pytest.mark.parametrize("command", [[], ["run"], ["reproduce"], ["keep"], ["report"], ["claims"], ["doctor"]])
def test_help_is_there_for_every_command(command, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main([*command, "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: paperlib" in shown
    if not command or command[0] in ("run", "reproduce", "keep"):
        assert "examples:" in shown


# --- mistakes that only the data or the model shows: a real kernel finds them


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def malformed_row(folder):
    write(folder / "glue/SST-2/train.tsv", "sentence\tlabel\na fine film\t1\nno tab here\n")
    return {"task": "sst2", "source": "directory", "data_dir": str(folder)}


def label_outside_the_set(folder):
    write(folder / "glue/SST-2/train.tsv", "sentence\tlabel\na fine film\t1\na dull film\t2\n")
    return {"task": "sst2", "source": "directory", "data_dir": str(folder)}


def pickled_weights(folder):
    write(folder / "config.json", '{"model_type": "bert"}')
    write(folder / "pytorch_model.bin", "not to be opened")
    return {"task": "cola", "backbone": str(folder)}


def unreachable_hub(folder):
    return {"task": "cola", "backbone": "some-org/some-model"}


@pytest.mark.parametrize(
    "mistake, told",
    [
        (malformed_row, ["train.tsv", "line 3"]),
        (label_outside_the_set, ["train.tsv", "line 3", "'2'", "'0', '1'"]),
        (pickled_weights, ["pickle format (pytorch_model.bin)", "convert them to model.safetensors"]),
        (unreachable_hub, ["'some-org/some-model'", "the hub cannot be reached", "use a local folder"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_mistake_a_kernel_finds_gives_one_line_too_and_leaves_no_run_folder(
    workspace, monkeypatch, capfd, mistake, told
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(workspace / "hub"))
    given = {"train_rows": 16, "epochs": 1, **mistake(workspace / "given")}
    assert cli.main([*RUN, "--json", json.dumps(given), "--quiet"]) == 2
    captured = capfd.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("paperlib: ") and all(part in line for part in told), line
    assert captured.out == ""
    assert list((workspace / "results" / "runs" / "finetune").iterdir()) == []
