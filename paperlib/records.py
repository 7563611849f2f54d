"""Records: what a notebook leaves behind. A record that exists means the notebook is done."""

import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from paperlib import code, paths
from paperlib.errors import InputError
from paperlib.parameters import MODELS, Parameters, profiles, searches, validated
from paperlib.parameters.cells import notebook_path

NAMING = ("task", "method", "placement", "seed", "backbone", "source")
VERSIONED = ("torch", "triton", "transformers", "datasets", "numpy", "scikit-learn", "scipy", "papermill")
NO_COMMIT = "no commit"
AT_REAL_SIZE = "paperlib reproduce cost && paperlib keep cost"


class Record(BaseModel):
    """One notebook's outcome, as stored in ``record.json``."""

    model_config = ConfigDict(extra="forbid")
    schema_version: Literal[1] = 1
    notebook: str
    parameters: dict[str, Any]
    results: dict[str, Any]
    verdicts: list[dict[str, Any]] = []
    runs: list[str] = []
    cost: dict[str, Any] = {}
    provenance: dict[str, Any] = {}


def path_of(notebook: str, parameters: dict[str, Any]) -> Path:
    """Where the record of this notebook with these parameters lies, for the code as it is now.

    ``<results>/<notebook>/<readable name>-<hash>/record.json``: the hash covers all parameters, the code
    (:func:`paperlib.code.fingerprint`) and the records it reads.
    """
    content = [notebook, parameters, code.fingerprint(notebook), [relative(p) for p in behind(notebook, parameters)]]
    return paths.results() / notebook / "-".join([*_readable(parameters), _short_hash(content)]) / "record.json"


def _readable(parameters: dict[str, Any]) -> list[str]:
    named = [
        str(parameters[name]).rstrip("/").rpartition("/")[2]
        for name in ("profile", "task", "method", "placement", "backbone", "source")
        if parameters.get(name)
    ]
    return named + ([f"seed{parameters['seed']}"] if "seed" in parameters else [])


def _short_hash(content: list) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def jobs_behind(notebook: str, parameters: dict[str, Any]) -> list[profiles.Job]:
    """What a notebook reads: a section the runs of its profile, the scoreboard the sections, others the searches they train."""
    if "profile" not in parameters:
        return [profiles.Job(*each) for each in searches.behind(notebook, parameters)]
    profile, overrides = parameters["profile"], profiles.overrides_of(parameters)
    if notebook == "overview":
        return [profiles.section_job(profile, section, overrides) for section in profiles.load(profile).sections]
    return profiles.run_jobs(profile, notebook, overrides)


def behind(notebook: str, parameters: dict[str, Any]) -> list[Path]:
    """Where the records the notebook reads lie, or will."""
    return [path_of(job.notebook, job.parameters) for job in jobs_behind(notebook, parameters)]


def current(path: Path, notebook: str, parameters: dict[str, Any]) -> bool:
    """Whether the notebook's record is there, and no record it reads has come, gone or changed since."""
    if not path.is_file():
        return False
    there = [p for p in behind(notebook, parameters) if p.is_file()]
    younger = any(p.stat().st_mtime_ns > path.stat().st_mtime_ns for p in there)
    return not younger and read(path).runs == [relative(p) for p in there]


def relative(path: Path) -> str:
    """``path`` below the results folder, in POSIX form."""
    return path.relative_to(paths.results()).as_posix()


def read(path: Path) -> Record:
    """The record at ``path``; InputError if it is not a record of this schema."""
    try:
        return Record.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "no JSON object"
        raise InputError(f"{path}: not a record of schema 1 ({where}); delete it and run the notebook again") from None


def write(path: Path, record: Record) -> None:
    """Store the record in one atomic step: a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record.model_dump(), indent=1, allow_nan=False)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as part:
        part.write(text)
        part.flush()
        os.fsync(part.fileno())
    Path(part.name).replace(path)


def reference_path_of(record: Record) -> Path:
    """Where the repository keeps this record: one place for a device and parameters, so that a newer measurement takes it."""
    device = record.provenance["device"]
    name = [re.sub("[^a-z0-9]+", "-", device.partition(": ")[2].lower()).strip("-"), *_readable(record.parameters)]
    return paths.reference() / record.notebook / f"{'-'.join([*name, _short_hash([record.parameters, device])])}.json"


def reference(notebook: str, **parameters: Any) -> list[Record]:
    """Records of ``notebook`` that the repository keeps (``paperlib keep``) and whose parameters agree with those given, newest first.

    They are evidence of another commit and maybe another machine: what shows them names :func:`origin`, and never mixes them with the
    reader's own. One per device and parameters. InputError for a parameter that the notebook does not have.
    """
    if unknown := sorted(set(parameters) - set(MODELS[notebook].model_fields)):
        raise InputError(f"{notebook} has no parameter {unknown[0]!r}")
    found = [read(path) for path in sorted((paths.reference() / notebook).glob("*.json"))]
    agreed = [each for each in found if all(each.parameters[name] == value for name, value in parameters.items())]
    return sorted(agreed, key=lambda each: each.provenance["created"], reverse=True)


def alike(found: list[Record], but: str) -> list[Record]:
    """Of kept records the first, one made on a GPU before others, with those of its device that differ from it in parameter ``but`` alone.

    In the order of that parameter; none of none.
    """
    first = next(iter(sorted(found, key=lambda each: not on_gpu(each))), None)
    return sorted(
        (each for each in found if _without(each, but) == _without(first, but)), key=lambda each: each.parameters[but]
    )


def on_gpu(record: Record) -> bool:
    """Whether the record was made on a GPU."""
    return record.provenance["device"].startswith("cuda")


def _without(record: Record, but: str) -> list:
    return [record.provenance["device"], {name: value for name, value in record.parameters.items() if name != but}]


def origin(record: Record) -> str:
    """Device, date, commit and versions of a kept record, to name it wherever it is shown."""
    told = record.provenance
    versions = ", ".join(f"{name} {told['versions'].get(name, '?')}" for name in ("torch", "transformers"))
    return f"{told['device']}, {told['created'][:10]}, commit {told['commit'][:12]}, {versions}"


def command(notebook: str, parameters: dict[str, Any]) -> str:
    """The shell command that runs this notebook with these parameters."""
    return f"paperlib run {notebook} --json {shlex.quote(json.dumps(parameters))}"


@dataclass
class Run:
    """An open notebook: its validated parameters, its folder, and the record still to be written."""

    notebook: str
    parameters: Parameters
    path: Path
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    shown: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Folder of this run: record, executed notebook, and checkpoint while it is unfinished."""
        return self.path.parent

    def records(self) -> tuple[list[Record], list[profiles.Job]]:
        """Records of the runs behind this section, and the jobs that have none yet, in the profile's order."""
        done, missing = [], []
        for job in jobs_behind(self.notebook, self.parameters.model_dump()):
            path = path_of(job.notebook, job.parameters)
            done.append(read(path)) if path.is_file() else missing.append(job)
        return done, missing

    def required(self) -> list[Record]:
        """Records of the runs behind this one; InputError names the first that is missing and the command that makes it."""
        done, missing = self.records()
        if missing:
            raise InputError(
                f"{self.notebook} needs a run of {missing[0].notebook} that has no record yet; "
                f"this makes it: {command(missing[0].notebook, missing[0].parameters)}"
            )
        return done

    def reference(self, notebook: str, **parameters: Any) -> list[Record]:
        """What :func:`reference` finds, said in a line each with its origin, and listed in this record; if nothing, the command that makes it.

        Called in a notebook's cell with the notebook's name written out, it makes the kept records part of the page's fingerprint.
        """
        found = reference(notebook, **parameters)
        for each in found:
            print(f"kept from a run of {notebook} at real size:\n  {origin(each)}")
        if not found:
            print(
                f"no run of {notebook} at real size is kept; on a machine with a GPU this makes it:\n  {AT_REAL_SIZE}"
            )
        kept = (reference_path_of(each).relative_to(paths.reference()).as_posix() for each in found)
        self.shown += [name for name in kept if name not in self.shown]
        return found

    @property
    def reproduce_command(self) -> str:
        """The command that makes the records this section reads."""
        parameters = self.parameters.model_dump()
        return profiles.command(parameters["profile"], profiles.overrides_of(parameters), self.notebook)

    def tell_missing(self, missing: list[profiles.Job]) -> None:
        """Say which runs this section still lacks, and the command that makes them; nothing if it lacks none."""
        if missing:
            print(f"{len(missing)} runs are missing; this makes them:\n  {self.reproduce_command}")
        for job in missing:
            print(
                "  missing:", ", ".join(f"{name} {job.parameters[name]}" for name in NAMING if name in job.parameters)
            )

    def finish(self, results: dict[str, Any], verdicts=(), cost=None, environment=None) -> None:
        """Write the record, last of all.

        ``results``: plain JSON, no timings. ``cost``: what :meth:`paperlib.measure.Meter.cost` returns. ``environment``: device,
        precision, threads and determinism, as :func:`paperlib.measure.environment` tells them.
        """
        parameters = self.parameters.model_dump()
        wall = (datetime.now(UTC) - self.started).total_seconds()
        record = Record(
            notebook=self.notebook,
            parameters=parameters,
            results=results,
            verdicts=list(verdicts),
            runs=[relative(path) for path in behind(self.notebook, parameters) if path.is_file()],
            cost={"wall_seconds": wall, **(cost or {})},
            provenance={**provenance(self.notebook, parameters), **(environment or {}), "reference": self.shown},
        )
        write(self.path, record)
        print(f"record: {relative(self.path)}")


def begin(notebook: str, variables: dict[str, Any]) -> Run:
    """Open a notebook: validate what its parameters cell set, and print the context of the run.

    ``variables`` is the notebook's ``globals()``. InputError names every mistaken value in one line.
    """
    model = MODELS[notebook]
    parameters = validated(model, notebook, {name: variables[name] for name in model.model_fields})
    run = Run(notebook, parameters, path_of(notebook, parameters.model_dump()))
    stamp = provenance(notebook, parameters.model_dump())
    state = " with uncommitted changes" if stamp["git_dirty"] else ""
    print(f"{notebook} at {stamp['git_sha'][:12]}{state}")
    print(" ".join(f"{name}={value!r}" for name, value in parameters.model_dump().items()))
    return run


def provenance(notebook: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Where a result came from: code, versions, machine, and the command that repeats it."""
    sha, dirty = git_state()
    return {
        "git_sha": sha,
        "git_dirty": dirty,
        "notebook_sha256": hashlib.sha256(notebook_path(notebook).read_bytes()).hexdigest(),
        "code_sha256": code.fingerprint(notebook),
        "versions": {name: _version(name) for name in VERSIONED},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(notebook, parameters),
    }


@lru_cache(maxsize=1)
def git_state() -> tuple[str, bool]:
    """The commit that is checked out, and whether anything but kept records differs from it."""

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(["git", "-C", paths.ROOT, *arguments], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):  # no git here, or no repository
            return ""
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":(exclude)results/reference")
    return git("rev-parse", "HEAD") or NO_COMMIT, bool(changed)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
