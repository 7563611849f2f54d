"""What a record says about a page: the facts above its title, the verdicts, the footer, the runs behind it."""

from collections import Counter
from pathlib import Path
from typing import Any

from paperlib import paths
from paperlib.records import Record

UNKNOWN = "not recorded"


def facts(record: Record) -> dict[str, str]:
    """What the evidence was made with, for the top of the page: source, backbone, device, profile, seeds."""
    told = {}
    for name in ("source", "backbone", "device"):
        values = [record.parameters.get(name), record.provenance.get(name)]
        values += [verdict.get(name) for verdict in record.verdicts]
        told[name] = ", ".join(dict.fromkeys(str(value) for value in values if value)) or UNKNOWN
    told |= {name: str(record.parameters[name]) for name in ("profile", "task", "method") if name in record.parameters}
    return told | ({"seeds": seeds} if (seeds := _seeds(record)) else {})


def verdicts(record: Record) -> dict[str, int]:
    """How many claims got which verdict, in the order of ``figures.VERDICTS``."""
    from paperlib.figures import VERDICTS

    given = Counter(verdict["verdict"] for verdict in record.verdicts)
    return {verdict: given[verdict] for verdict in VERDICTS if given[verdict]}


def footer(record: Record) -> dict[str, str]:
    """Where the page came from, term by term; what the record does not tell is said to be missing."""
    told, cost = record.provenance, record.cost
    dirty = {True: " with uncommitted changes", False: " (clean)", None: ""}[told.get("git_dirty")]
    return {
        "Made": _told(told, "created"),
        "Git commit": _told(told, "git_sha") + dirty,
        "Notebook SHA-256": _told(told, "notebook_sha256"),
        "Code SHA-256": _told(told, "code_sha256"),
        "Parameters": _listed(record.parameters) or "none",
        "Seeds": _seeds(record) or "none",
        "Kept records shown": ", ".join(told.get("reference", [])) or "none",
        "Device": _told(told, "device"),
        "Precision": _told(told, "precision"),
        "Deterministic": _told(told, "deterministic"),
        "Threads": _told(told, "threads"),
        "Platform": f"Python {_told(told, 'python')}, {_told(told, 'platform')}",
        "Versions": _listed(told.get("versions", {}), " ") or UNKNOWN,
        "Wall time": _seconds(cost.get("wall_seconds")),
        "Peak memory": _bytes(cost.get("peak_memory_bytes")),
        "Energy": _energy(cost.get("energy_joules")),
    }


def runs(record: Record, record_path: Path, outputs: dict[Path, str]) -> list[tuple[str, str | None]]:
    """Every record behind the page, with the page that shows it, if one does.

    ``outputs``: path of a record -> its page below the reports folder.
    """
    folders = (paths.results(), record_path.parent)
    return [
        (run, next((outputs[folder / run] for folder in folders if folder / run in outputs), None))
        for run in record.runs
    ]


def _seeds(record: Record) -> str:
    return ", ".join(
        f"{name} {_shown(value)}" if name not in ("seed", "seeds") else _shown(value)
        for name, value in record.parameters.items()
        if "seed" in name
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _told(values: dict[str, Any], name: str) -> str:
    return UNKNOWN if values.get(name) is None else _shown(values[name])


def _listed(values: dict[str, Any], equals: str = " = ") -> str:
    return ", ".join(f"{name}{equals}{value}" for name, value in values.items())


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _bytes(size: float | None) -> str:
    if size is None:
        return UNKNOWN
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _energy(joules: float | None) -> str:
    return "not measured" if joules is None else f"{joules:,.0f} J"
