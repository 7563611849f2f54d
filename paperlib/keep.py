"""Keep records in the repository: measured at the papers' real size, for readers whose machine cannot."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from paperlib import code, paths, plan, records
from paperlib.errors import InputError
from paperlib.parameters import base, model_of, profiles

LARGEST = 200_000
"""Bytes of a kept record: figures and long traces belong elsewhere."""


def keep(names: Iterable[str], parameters: dict[str, Any]) -> list[Path]:
    """Copy what has been measured to ``results/reference/``; returns where the copies lie.

    ``names``: profiles (their runs, performance notebooks, and sections that show kept records of themselves) or notebooks; of both those
    records alone whose parameters agree with ``parameters``. Of several records with the same parameters and device the newest is kept.
    InputError, and nothing is copied, if there is none, if one belongs to no commit or if one is too large.
    """
    found = [each for name in names for each in _of(name) if _agrees(each, parameters)]
    if not found:
        asked = " and these parameters" if parameters else ""
        raise InputError(f"no record of {', '.join(names)}{asked} in {paths.results()}: nothing to keep")
    copies = {}
    for record in sorted(found, key=lambda each: each.provenance["created"]):
        copies[records.reference_path_of(record)] = _with_commit(record)
    for record in copies.values():
        _require_small(record)
    for path, record in copies.items():
        records.write(path, record)
    return list(copies)


def _of(name: str) -> list[records.Record]:
    if name not in profiles.names():
        model_of(name)
        return _executed(name)
    chosen = plan.make(name)
    sections = chosen.sections()
    measuring = [s for s in sections if s.startswith("performance/") or s in code.shown(s)]
    jobs = [*chosen.runs(sections).values(), *map(chosen.section_job, measuring)]
    return [each for job in jobs for each in _executed(job.notebook) if each.parameters == job.parameters]


def _executed(notebook: str) -> list[records.Record]:
    """All records of a notebook, of whatever code."""
    return [records.read(path) for path in sorted((paths.results() / notebook).glob("*/record.json"))]


def _agrees(record: records.Record, parameters: dict[str, Any]) -> bool:
    known = model_of(record.notebook).model_fields
    for name in parameters:
        if name not in known:
            raise InputError(f"{record.notebook} has no parameter {name!r}{base.suggestion(name, known)}")
    return all(record.parameters.get(name) == value for name, value in parameters.items())


def _with_commit(record: records.Record) -> records.Record:
    """The record with the commit it belongs to: that of its run, or the one checked out here if it has the very same code."""
    told = record.provenance
    here, changed_here = records.git_state()
    if told["git_sha"] != records.NO_COMMIT and not told["git_dirty"]:
        commit = told["git_sha"]
    elif here != records.NO_COMMIT and not changed_here and told["code_sha256"] == code.fingerprint(record.notebook):
        commit = here
    else:
        made = "outside a git checkout" if told["git_sha"] == records.NO_COMMIT else "with uncommitted changes"
        raise InputError(
            f"{record.notebook}, {told['created']}: made {made}, and the code checked out here is not the same or has changes too; "
            f"commit, then run it again: {told['command']}"
        )
    return record.model_copy(update={"provenance": {**told, "commit": commit}})


def _require_small(record: records.Record) -> None:
    size = len(json.dumps(record.model_dump(), indent=1))
    if size > LARGEST:
        raise InputError(
            f"{record.notebook}, {record.provenance['created']}: {size:,} bytes; a kept record has at most {LARGEST:,}"
        )
