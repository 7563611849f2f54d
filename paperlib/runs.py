"""Execute one notebook: strict parameters in, executed copy and record out; resumable, never repeated."""

import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paperlib import paths, records
from paperlib.errors import InputError
from paperlib.parameters import resolve
from paperlib.parameters.cells import notebook_path

EXECUTED = "notebook.ipynb"


class RunFailed(RuntimeError):
    """The notebook raised; the message names the executed copy that holds the traceback."""


def execute(notebook: str, given: dict[str, Any], threads: int = 0, progress: bool = True) -> Path:
    """Run ``notebook`` with its defaults overridden by ``given`` and return the path of its record.

    A record that is current (:func:`paperlib.records.current`) is returned as it is. ``threads``: CPU threads of the kernel, 0 for as many as
    torch chooses.
    Raises InputError for a mistake in the parameters or the input they name (nothing is left behind), RunFailed for anything else (the
    executed notebook with its traceback and the last checkpoint stay, and running again continues).
    """
    parameters = resolve(notebook, given).model_dump()
    record = records.path_of(notebook, parameters)
    if records.current(record, notebook, parameters):
        return record
    with _alone(record.parent), _environment(threads):
        # Another process may have finished this very run while we waited for its lock.
        if not records.current(record, notebook, parameters):
            record.unlink(missing_ok=True)
            fresh = not record.parent.exists()
            record.parent.mkdir(parents=True, exist_ok=True)
            try:
                _papermill(notebook, parameters, record.parent / EXECUTED, progress)
            except InputError:
                if fresh:
                    shutil.rmtree(record.parent, ignore_errors=True)
                raise
    if not record.is_file():
        raise RunFailed(f"{notebook} ended without writing a record; see {record.parent / EXECUTED}")
    return record


def _papermill(notebook: str, parameters: dict[str, Any], output: Path, progress: bool) -> None:
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    # Unix socket paths end at about 104 bytes, so the kernel's sockets live in a short folder of their own. TCP ports collide when
    # several kernels start at once.
    with tempfile.TemporaryDirectory(prefix="pl", dir="/tmp") as sockets:
        try:
            papermill.execute_notebook(
                notebook_path(notebook),
                output,
                parameters=parameters,
                kernel_name="python3",
                cwd=paths.ROOT,
                progress_bar=progress,
                log_output=False,
                stderr_file=sys.stderr if progress else None,
                shutdown_kernel="immediate",
                config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/k"}}),
            )
        except PapermillExecutionError as error:
            if error.ename == InputError.__name__:
                raise InputError(error.evalue) from None
            raise RunFailed(f"{notebook} failed: {error.ename}: {error.evalue}; traceback in {output}") from None
        except DeadKernelError:
            raise RunFailed(f"{notebook} failed: its kernel died, for want of memory perhaps; see {output}") from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the run's folder: a second process with the same run waits here instead of working beside us.

    The lock lies outside the folder, which may be removed while others wait for it.
    """
    locks = paths.results() / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / folder.name).open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """What must be set before the kernel's libraries load: threads, deterministic CUDA matrix products, and a GPU of its own."""
    wanted = {
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "TOKENIZERS_PARALLELISM": "false",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    if threads:
        wanted |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with _gpu() as gpu:
        wanted |= {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@contextmanager
def _gpu() -> Iterator[str | None]:
    """The number of a GPU no other run holds, waiting for one if all are taken; None without GPUs or where the caller has chosen."""
    found = sorted(p.name.removeprefix("nvidia") for p in Path("/dev").glob("nvidia[0-9]*"))
    if not found or "CUDA_VISIBLE_DEVICES" in os.environ:
        yield None
        return
    locks = {number: (paths.results() / f".gpu{number}.lock").open("w") for number in found}
    try:
        yield _first_free(locks)
    finally:
        for lock in locks.values():
            lock.close()


def _first_free(locks: dict) -> str:
    while True:
        for number, lock in locks.items():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return number
            except BlockingIOError:
                continue
        time.sleep(1.0)
