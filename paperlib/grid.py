"""The grid: hand a plan's notebooks to Snakemake, watch the records come, and clean up after interruptions."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from tqdm import tqdm

from paperlib import paths, plan, records, runs
from paperlib.errors import InputError
from paperlib.parameters import profiles

# A fine-tuning run of a small backbone peaks at about three gigabytes.
GIGABYTES_EACH = 3
LOG = "log.txt"
BAD_INPUT = 2


def slots() -> int:
    """Notebooks to run at a time: one per GPU, or one per core, as far as memory reaches."""
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return gpus or max(1, min(os.cpu_count() or 1, psutil.virtual_memory().total // GIGABYTES_EACH // 2**30))


def reproduce(chosen: plan.Plan, sections: list[str], jobs: int, profile: str = "local") -> list[Path]:
    """Execute the runs of ``sections``, then the sections themselves, ``jobs`` at a time; returns the records that failed to come.

    What has a record is not run again. A section whose runs failed is executed all the same: it says what is missing. Performance notebooks
    come last, one at a time with all cores, so that nothing disturbs what they time. ``profile``: a folder of ``parameters/grid``.
    """
    settings = paths.PARAMETERS / "grid" / profile
    if not settings.is_dir():
        known = ", ".join(sorted(path.name for path in settings.parent.iterdir()))
        raise InputError(f"unknown grid profile {profile!r}; known: {known}")
    paths.results().mkdir(parents=True, exist_ok=True)
    with _only_one():
        _unlock()
        chosen.save()
        timed = [section for section in sections if section.startswith("performance/")]
        light = [section for section in sections if section not in timed]
        failed = _execute(chosen.runs(sections), jobs, 1, settings, "runs")
        failed += _execute(chosen.pages(light), jobs, 1, settings, "sections")
        cores = os.cpu_count() or 1
        return failed + _execute(chosen.pages(timed), cores, cores, settings, "performance")


def reasons(failed: list[Path]) -> tuple[dict[str, int], bool]:
    """Why records failed to come: reason -> how often; and whether all of it was bad input. Folders that hold nothing but that reason go."""
    told: Counter[str] = Counter()
    bad_input = []
    for path in failed:
        log = path.parent / LOG
        lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
        reason = next((line for line in reversed(lines) if line.startswith("paperlib: ")), None)
        told[
            (reason or f"no record came from {path.parent.name}; see {paths.results() / 'snakemake.log'}").removeprefix(
                "paperlib: "
            )
        ] += 1
        bad_input.append(bool(lines) and lines[-1] == f"exit code {BAD_INPUT}")
        if bad_input[-1]:
            shutil.rmtree(path.parent)
    return dict(told), all(bad_input)


def _execute(wanted: dict[Path, profiles.Job], cores: int, threads: int, settings: Path, what: str) -> list[Path]:
    missing = {path: job for path, job in wanted.items() if not _finished(path, job)}
    if not missing:
        print(f"{what}: all {len(wanted)} are done")
        return []
    for path in missing:
        path.unlink(missing_ok=True)
    listing = {
        str(path): {
            **{"notebook": job.notebook, "parameters": job.parameters, "threads": threads},
            "after": [str(each) for each in records.behind(job.notebook, job.parameters) if each in missing],
        }
        for path, job in missing.items()
    }
    with (
        _snakemake(listing, cores, settings) as process,
        tqdm(total=len(wanted), initial=len(wanted) - len(missing), desc=what, unit="notebook", smoothing=0.1) as bar,
    ):
        while process.poll() is None:
            time.sleep(0.5)
            _advance(bar, wanted)
        _advance(bar, wanted)
    return [path for path in missing if not path.is_file()]


def _finished(path: Path, job: profiles.Job) -> bool:
    # A run's record is enough. A page needs the executed copy too, which a notebook run in JupyterLab does not leave.
    shown = job.notebook.startswith("runs/") or (path.parent / runs.EXECUTED).is_file()
    return shown and records.current(path, job.notebook, job.parameters)


def _advance(bar: tqdm, wanted: dict[Path, profiles.Job]) -> None:
    done = sum(path.is_file() for path in wanted)
    if done > bar.n:
        bar.update(done - bar.n)


@contextmanager
def _snakemake(listing: dict[str, dict], cores: int, settings: Path) -> Iterator[subprocess.Popen]:
    """Snakemake at work on the listed jobs; it is stopped, and waited for, when we leave early."""
    jobs = paths.results() / "jobs.json"
    jobs.write_text(json.dumps(listing), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        paths.ROOT / "Snakefile",
        "--directory",
        paths.results(),
    ]
    options = ["--workflow-profile", settings, "--cores", str(cores), "--config", f"jobs={jobs}"]
    with (paths.results() / "snakemake.log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen([*command, *options], stdout=log, stderr=subprocess.STDOUT, cwd=paths.ROOT)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


@contextmanager
def _only_one() -> Iterator[None]:
    with (paths.results() / ".reproduce.lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another reproduce is at work in {paths.results()}; wait for it, or set PAPERLIB_RESULTS"
            ) from None
        yield


def _unlock() -> None:
    # We hold the folder alone, so a lock Snakemake left here belongs to a process that was killed.
    shutil.rmtree(paths.results() / ".snakemake" / "locks", ignore_errors=True)
