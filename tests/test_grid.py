"""The grid, with real Snakemake and real kernels, on a small project whose notebooks compute nothing."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from paperlib import cli, grid, paths, plan, records

PROFILE = """
description: three runs and a section
needs: nothing
minutes: 0
defaults: {source: diagnostics, backbone: minilm, data_dir: ""}
sections:
  dps/a_case_study:
    runs:
      - {notebook: runs/finetune, grid: {seed: [0, 1]}}
"""
CHAINED = """
description: two trainings that read one search
needs: nothing
minutes: 0
defaults: {source: diagnostics, backbone: minilm, data_dir: ""}
sections:
  dps/a_case_study:
    runs:
      - {notebook: runs/delta_tuning, parameters: {placement: searched, search_seeds: [7]}, grid: {seed: [0, 1]}}
"""
BEGIN = "from pathlib import Path\nfrom paperlib import paths, records\nrun = records.begin({!r}, globals())"
# A run notes that it began, then waits for the gate, and fails where it is told to.
TRAINING = """import time
gate = paths.results().parent
with (gate / "begun").open("a") as file:
    file.write(f"{run.parameters.seed}\\n")
while (gate / "closed").exists():
    time.sleep(0.05)
assert not (gate / f"broken{run.parameters.seed}").exists()
run.finish({"seed": run.parameters.seed})"""
READING = (
    "done, missing = run.records()\nrun.finish({'seeds': [r.results['seed'] for r in done], 'missing': len(missing)})"
)


# Slow enough that a run which did not wait would find nothing.
CHOOSING = "import time\ntime.sleep(6)\nrun.finish({'found': run.parameters.seed})"
USING = "run.finish({'read': [record.results['found'] for record in run.required()]})"


@pytest.fixture(scope="module")
def project(tmp_path_factory, write_notebook) -> Path:
    """A copy of the project with a tiny profile and light notebooks under the real names; blanks in its path on purpose."""
    root = tmp_path_factory.mktemp("a small project") / "pa per"
    for name in ("paperlib", "parameters"):
        shutil.copytree(paths.ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "matplotlibrc"):
        shutil.copy(paths.ROOT / name, root)
    (root / "parameters" / "profiles" / "tiny.yaml").write_text(PROFILE)
    (root / "parameters" / "profiles" / "chained.yaml").write_text(CHAINED)
    codes = {
        "runs/finetune": TRAINING,
        "runs/search": CHOOSING,
        "runs/delta_tuning": USING,
        "overview": "run.finish({})",
    }
    for name, code in (codes | {"dps/a_case_study": READING}).items():
        cells = json.loads((paths.NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]
        write_notebook(root / "notebooks", name, "".join(cells[1]["source"]), BEGIN.format(name), code)
    return root


@pytest.fixture
def here(project, workspace, monkeypatch):
    """This process sees the small project too, to know where its records lie."""
    for name, folder in (("ROOT", ""), ("PARAMETERS", "parameters"), ("NOTEBOOKS", "notebooks")):
        monkeypatch.setattr(paths, name, project / folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(project))
    return project


def start(project, *arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "paperlib.cli", "reproduce", "tiny", "--jobs", "2", *arguments]
    return subprocess.Popen(
        command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def reproduce(project, *arguments) -> tuple[int, str, str]:
    process = start(project, *arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_a_run_that_reads_another_waits_for_it(here, workspace):
    chained = plan.Plan("chained", {})
    search, *trained = chained.runs(["dps/a_case_study"])
    command = [sys.executable, "-m", "paperlib.cli", "reproduce", "chained", "--jobs", "2"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=120)
    assert "dps/a_case_study failed" in done.stderr, "its stub reads results that these runs do not have"
    assert records.read(search).results == {"found": 7} and len(trained) == 2
    for path in trained:
        assert records.read(path).results == {"read": [7]}
        assert records.read(path).runs == [records.relative(search)]


def begun(workspace) -> list[str]:
    file = workspace / "begun"
    return sorted(file.read_text().split()) if file.is_file() else []


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def descendants(pid: int) -> dict[int, str]:
    """Process id -> command line of everything below ``pid``."""
    return {child.pid: " ".join(child.cmdline()) for child in psutil.Process(pid).children(recursive=True)}


def kill(process: subprocess.Popen) -> None:
    """SIGKILL to the command and to the Snakemake below it; the runs it started are left to themselves."""
    snakemake = [pid for pid, line in descendants(process.pid).items() if "-m snakemake" in line]
    assert snakemake
    for pid in (process.pid, *snakemake):
        os.kill(pid, signal.SIGKILL)
    process.communicate()


def test_killed_or_failed_it_goes_on_without_hand_work_and_repeats_nothing_that_is_done(here, workspace):
    tiny = plan.Plan("tiny", {})
    good, bad = tiny.runs(["dps/a_case_study"])
    section = plan.record_path(tiny.section_job("dps/a_case_study"))

    (workspace / "closed").touch()
    killed = start(here)
    wait_for(lambda: begun(workspace) == ["0", "1"])
    kill(killed)

    # One run fails: it is told, and everything else is done.
    (workspace / "broken1").touch()
    (workspace / "closed").unlink()
    code, out, err = reproduce(here)
    assert code == 1
    assert "AssertionError" in err and str(bad.parent) in err
    assert "AssertionError" in (bad.parent / "log.txt").read_text()
    assert records.read(section).results == {"seeds": [0], "missing": 1}
    assert out.endswith(f"report: {workspace / 'reports' / 'index.html'}\n")
    assert (workspace / "reports" / "dps" / "a_case_study.html").is_file()

    # The next time only that run is repeated, and the section that reads it.
    (workspace / "broken1").unlink()
    (workspace / "begun").unlink()
    kept = good.stat().st_mtime_ns
    code, _, err = reproduce(here)
    assert code == 0, err
    assert begun(workspace) == ["1"] and good.stat().st_mtime_ns == kept
    assert records.read(section).results == {"seeds": [0, 1], "missing": 0}
    assert records.read(section).runs == [records.relative(path) for path in (good, bad)]

    # And then nothing at all.
    before = {path: path.stat().st_mtime_ns for path in (workspace / "results").rglob("record.json")}
    code, out, _ = reproduce(here)
    assert code == 0 and "runs: all 2 are done" in out and "sections: all 1 are done" in out
    assert {path: path.stat().st_mtime_ns for path in (workspace / "results").rglob("record.json")} == before
    assert len(before) == 4


def test_a_second_reproduce_beside_the_first_is_refused_in_one_line(workspace, capsys):
    (workspace / "results").mkdir()
    with (workspace / "results" / ".reproduce.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert cli.main(["reproduce", "smoke", "--only", "lets/a1_metrics"]) == 2
    captured = capsys.readouterr()
    told = f"paperlib: another reproduce is at work in {workspace / 'results'}; wait for it, or set PAPERLIB_RESULTS\n"
    assert (captured.out, captured.err) == ("", told)


def test_there_is_at_least_one_slot_and_never_more_than_cores(monkeypatch):
    monkeypatch.setattr(grid.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([]))
    assert 1 <= grid.slots() <= 64
    monkeypatch.setattr(grid.os, "cpu_count", lambda: None)
    assert grid.slots() == 1
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([Path("/dev/nvidia0"), Path("/dev/nvidia1")]))
    assert grid.slots() == 2
