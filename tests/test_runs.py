"""A run, exactly: real papermill and real kernels; done once, resumable, and the same whoever executes it."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from safetensors import safe_open

from paperlib import cli, parameters, paths, records, runs
from paperlib.errors import InputError
from paperlib.parameters.base import Parameters

RUN = "runs/finetune"
# Forty steps of a tiny model, a checkpoint after each: long enough to be killed half-way.
GIVEN = {
    "backbone": "tiny-bert", "task": "cola", "train_rows": 32, "batch_size": 4, "epochs": 5, "method": "dps_dense",
    "learning_rate": 1e-3, "checkpoint_seconds": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_core():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Record of the run, executed from end to end by our runner."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAPERLIB_RESULTS", str(tmp_path_factory.mktemp("whole")))
        path = runs.execute(RUN, GIVEN, threads=1, progress=False)
        return path, records.read(path)


def path_here() -> Path:
    return records.path_of(RUN, parameters.resolve(RUN, GIVEN).model_dump())


def start() -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "paperlib.cli",
        "run",
        RUN,
        "--json",
        json.dumps(GIVEN),
        "--threads",
        "1",
        "--quiet",
    ]
    return subprocess.Popen(
        command, cwd=paths.ROOT, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


def test_a_run_leaves_its_record_and_the_executed_notebook_and_no_checkpoint(uninterrupted):
    path, record = uninterrupted
    assert sorted(p.name for p in path.parent.iterdir()) == ["notebook.ipynb", "record.json"]
    assert record.parameters == parameters.resolve(RUN, GIVEN).model_dump()
    assert record.results["train_rows"] == 32 and len(record.results["losses"]) == 40
    assert set(record.results["test"]) == {"matthews"}
    assert record.cost["wall_seconds"] > 0 and record.cost["peak_memory_bytes"] > 2**20
    told = record.provenance
    assert (
        told["threads"] == 1
        and told["deterministic"]
        and told["device"].startswith("cpu")
        or told["device"].startswith("cuda")
    )
    executed = nbformat.read(path.parent / "notebook.ipynb", as_version=4)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")


def test_finished_work_is_not_repeated(uninterrupted, monkeypatch):
    path, _ = uninterrupted
    monkeypatch.setenv("PAPERLIB_RESULTS", str(path.parents[3]))
    monkeypatch.setattr(runs, "_papermill", lambda *_: pytest.fail("a kernel was started"))
    before = path.stat().st_mtime_ns
    assert cli.main(["run", RUN, "--json", json.dumps(GIVEN)]) == 0
    assert path.stat().st_mtime_ns == before


def test_plain_papermill_gives_the_same_record_in_another_folder(uninterrupted, workspace):
    """No runner of ours, started elsewhere: the same run twice gives the same results."""
    pairs = [part for name, value in GIVEN.items() for part in ("-p", name, str(value))]
    notebook = paths.NOTEBOOKS / f"{RUN}.ipynb"
    command = [sys.executable, "-m", "papermill", notebook, workspace / "out.ipynb", *pairs, "--no-progress-bar"]
    done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert records.read(path_here()).results == uninterrupted[1].results


def steps_done(checkpoint: Path) -> int:
    """Optimizer steps behind a checkpoint; 0 where there is none yet. The first one may precede the first step."""
    if not checkpoint.is_file():
        return 0
    with safe_open(checkpoint, "pt") as file:
        return json.loads(file.metadata()["state"])["step"]


def test_killed_half_way_it_goes_on_and_ends_as_if_never_stopped_and_two_at_once_do_the_work_once(
    uninterrupted, workspace
):
    checkpoint = path_here().parent / "checkpoint.safetensors"
    first = start()
    wait_for(lambda: steps_done(checkpoint) > 0 or first.poll() is not None)
    (kernel,) = psutil.Process(first.pid).children()
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    wait_for(lambda: not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE, seconds=15)
    assert checkpoint.is_file() and not path_here().exists(), "it was killed half-way"

    second, executed = start(), path_here().parent / runs.EXECUTED
    stopped = checkpoint.stat().st_mtime_ns
    wait_for(lambda: executed.stat().st_mtime_ns > stopped)
    third = start()
    told = [process.communicate(timeout=90) for process in (second, third)]
    assert [process.returncode for process in (second, third)] == [0, 0], told
    assert told == [(f"{path_here()}\n".encode(), b"")] * 2
    found = records.read(path_here())
    assert found.results == uninterrupted[1].results, "bitwise: losses, scores and all"
    assert found.parameters == uninterrupted[1].parameters
    cells = nbformat.read(executed, as_version=4).cells
    bars = "".join(
        output.get("text", "") for cell in cells for output in cell.get("outputs", []) if output.get("name") == "stderr"
    )
    assert "40/40" in bars and "  0%|" not in bars, "one kernel, and it went on from the checkpoint"
    assert not checkpoint.exists()


# --- notebooks of our own: what happens when they go wrong


class Small(Parameters):
    seed: int


@pytest.fixture
def small(workspace, monkeypatch, tmp_path, write_notebook):
    """``small(*code)``: a run notebook ``runs/small`` with these cells."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setitem(parameters.MODELS, "runs/small", Small)
    return lambda *code: write_notebook(tmp_path / "notebooks", "runs/small", "seed: int = 0  # any", *code)


def folder() -> Path:
    return records.path_of("runs/small", {"seed": 0}).parent


def test_a_failing_notebook_leaves_its_traceback_exit_code_1_and_no_record(small, capfd):
    small("before = 1", "raise RuntimeError('the loss is gone')")
    assert cli.main(["run", "runs/small", "--quiet"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    executed = folder() / "notebook.ipynb"
    assert line == f"paperlib: runs/small failed: RuntimeError: the loss is gone; traceback in {executed}"
    outputs = [output for cell in nbformat.read(executed, as_version=4).cells for output in cell.get("outputs", [])]
    (error,) = [output for output in outputs if output.output_type == "error"]
    assert error.ename == "RuntimeError" and "the loss is gone" in "".join(error.traceback)
    assert not (folder() / "record.json").exists()


def test_a_dead_kernel_is_a_failed_run_not_a_traceback(small, capfd):
    small("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert cli.main(["run", "runs/small", "--quiet"]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1].startswith("paperlib: runs/small failed: ") and "Traceback" not in "".join(lines)


def test_a_notebook_that_writes_no_record_has_not_succeeded(small, capsys):
    small("x = 1")
    assert cli.main(["run", "runs/small", "--quiet"]) == 1
    assert "runs/small ended without writing a record; see " in capsys.readouterr().err


def test_what_bad_input_finds_of_an_earlier_attempt_stays(small):
    """Its own folder goes with a mistaken input, but never a checkpoint someone waits to resume from."""
    small("from paperlib.errors import InputError; raise InputError('row 3 is wrong')")
    folder().mkdir(parents=True)
    (folder() / "checkpoint.safetensors").write_text("steps")
    with pytest.raises(InputError, match="^row 3 is wrong$"):
        runs.execute("runs/small", {}, progress=False)
    assert (folder() / "checkpoint.safetensors").read_text() == "steps"


# --- without a kernel: locks, environment


@pytest.fixture
def recorded(small, monkeypatch):
    """Instead of papermill: write the record at once and note the environment it was given."""
    small("pass")
    seen = []

    def instead(notebook, values, output, progress):
        seen.append(dict(os.environ))
        records.write(output.parent / "record.json", records.Record(notebook=notebook, parameters=values, results={}))

    monkeypatch.setattr(runs, "_papermill", instead)
    return seen


def test_one_who_waited_for_the_lock_finds_the_work_done(recorded, workspace):
    locks = workspace / "results" / ".locks"
    locks.mkdir(parents=True)
    with (locks / folder().name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=runs.execute, args=("runs/small", {}))
        waiting.start()
        time.sleep(0.3)
        assert waiting.is_alive() and recorded == []
        records.write(
            folder() / "record.json",
            records.Record(notebook="runs/small", parameters={"seed": 0}, results={"by": "other"}),
        )
    waiting.join(timeout=5)
    assert recorded == [] and records.read(folder() / "record.json").results == {"by": "other"}


def test_the_kernel_gets_its_threads_and_deterministic_products_and_nothing_stays(recorded, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = dict(os.environ)
    runs.execute("runs/small", {}, threads=3)
    assert recorded[0]["OMP_NUM_THREADS"] == "3" and recorded[0]["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert dict(os.environ) == before


def test_each_run_gets_a_gpu_no_other_run_holds(recorded, monkeypatch, tmp_path):
    devices = [Path("/dev/nvidia0"), Path("/dev/nvidia1")]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(devices if pattern.startswith("nvidia") else []))
    paths.results().mkdir(parents=True)
    with runs._gpu() as first, runs._gpu() as second:
        assert {first, second} == {"0", "1"}
        monkeypatch.setattr(runs.time, "sleep", lambda _: (_ for _ in ()).throw(TimeoutError))
        with pytest.raises(TimeoutError), runs._gpu():
            pytest.fail("there is no third GPU")
    with runs._gpu() as again:
        assert again == "0"
    runs.execute("runs/small", {})
    assert recorded[0]["CUDA_VISIBLE_DEVICES"] == "0"


def test_a_gpu_the_caller_chose_is_kept(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    with runs._gpu() as gpu:
        assert gpu is None
