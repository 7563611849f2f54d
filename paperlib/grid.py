"""The grid: hand a plan's notebooks to Snakemake, watch the records come, and clean up after interruptions."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from tqdm import tqdm

from paperlib import paths, plan
from paperlib.errors import InputError
from paperlib.parameters import profiles

# A fine-tuning run of a small backbone peaks at about two gigabytes.
GIGABYTES_EACH = 2


def slots() -> int:
    """Notebooks to run at a time: one per GPU, or one per two gigabytes of memory and core."""
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return gpus or max(1, min(os.cpu_count() or 1, psutil.virtual_memory().total // GIGABYTES_EACH // 2**30))


def reproduce(chosen: plan.Plan, sections: list[str], jobs: int) -> list[Path]:
    """Execute the runs of ``sections``, then the sections themselves, ``jobs`` at a time; returns the records that failed to come.

    What has a record is not run again. A section whose runs failed is executed all the same: it says what is missing.
    """
    paths.results().mkdir(parents=True, exist_ok=True)
    with _only_one():
        _unlock()
        chosen.save()
        runs = chosen.runs(sections)
        failed = _execute(runs, {path: [] for path in runs}, jobs, "runs")
        pages = chosen.pages(sections)
        behind = {
            path: [p for p in map(plan.record_path, chosen.run_jobs(job.notebook)) if p.is_file()]
            for path, job in pages.items()
        }
        return failed + _execute(pages, behind, jobs, "sections")


def _execute(wanted: dict[Path, profiles.Job], inputs: dict[Path, list[Path]], jobs: int, what: str) -> list[Path]:
    stale = {
        path
        for path in wanted
        if path.is_file() and any(p.stat().st_mtime > path.stat().st_mtime for p in inputs[path])
    }
    missing = {path: job for path, job in wanted.items() if path in stale or not path.is_file()}
    if not missing:
        print(f"{what}: all {len(wanted)} are done")
        return []
    for path in stale:
        path.unlink()
    process = _snakemake(missing, inputs, jobs)
    with tqdm(total=len(wanted), initial=len(wanted) - len(missing), desc=what, unit="notebook", smoothing=0.1) as bar:
        while process.poll() is None:
            time.sleep(0.5)
            _advance(bar, wanted)
        _advance(bar, wanted)
    return [path for path in missing if not path.is_file()]


def _advance(bar: tqdm, wanted: dict[Path, profiles.Job]) -> None:
    done = sum(path.is_file() for path in wanted)
    if done > bar.n:
        bar.update(done - bar.n)


def _snakemake(missing: dict[Path, profiles.Job], inputs: dict[Path, list[Path]], jobs: int) -> subprocess.Popen:
    listing = paths.results() / "jobs.json"
    listing.write_text(
        json.dumps(
            {
                str(path): {
                    "notebook": job.notebook,
                    "parameters": job.parameters,
                    "inputs": [str(p) for p in inputs[path]],
                }
                for path, job in missing.items()
            }
        ),
        encoding="utf-8",
    )
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(paths.ROOT / "Snakefile"),
        "--directory",
        str(paths.results()),
        "--cores",
        str(jobs),
        "--keep-going",
        "--rerun-incomplete",
        "--rerun-triggers",
        "input",
        "params",
        "mtime",
        "--show-failed-logs",
        "--nocolor",
        "--config",
        f"jobs={listing}",
    ]
    log = (paths.results() / "snakemake.log").open("a", encoding="utf-8")
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=paths.ROOT)


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
