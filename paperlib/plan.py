"""The plan: which notebooks a profile runs, in what order, and what of it is done."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paperlib import claims, paths, records
from paperlib.errors import InputError
from paperlib.parameters import profiles


@dataclass(frozen=True)
class Plan:
    """A profile with the reader's overrides: the same choice always gives the same records."""

    profile: str
    overrides: dict[str, Any]

    def sections(self) -> list[str]:
        """Ids of the section and performance notebooks, in the profile's order."""
        return list(profiles.load(self.profile).sections)

    def section_job(self, section: str) -> profiles.Job:
        """The section notebook, resolved."""
        return profiles.section_job(self.profile, section, self.overrides)

    def run_jobs(self, section: str) -> list[profiles.Job]:
        """The runs the section reads, resolved."""
        return profiles.run_jobs(self.profile, section, self.overrides)

    def runs(self, sections: list[str]) -> dict[Path, profiles.Job]:
        """Record path -> run, for all runs of these sections and those they read; a run two sections share comes once."""
        wanted = [job for section in sections for job in self.run_jobs(section)]
        read = [each for job in wanted for each in records.jobs_behind(job.notebook, job.parameters)]
        return {record_path(job): job for job in [*read, *wanted]}

    def pages(self, sections: list[str]) -> dict[Path, profiles.Job]:
        """Record path -> section notebook."""
        return {record_path(job): job for job in map(self.section_job, sections)}

    def command(self, section: str | None = None) -> str:
        """The shell command that executes this plan, or one section of it."""
        return profiles.command(self.profile, self.overrides, section)

    def unfinished(self, sections: list[str]) -> list[profiles.Job]:
        """Jobs of these sections that have no record yet, in the order that executes them: runs, pages, then what is timed."""
        pages = self.pages(sorted(sections, key=lambda section: section.startswith("performance/")))
        return [job for path, job in {**self.runs(sections), **pages}.items() if not path.is_file()]

    def save(self) -> None:
        """Remember this plan as the one that report and claims show."""
        path = paths.results() / "plan.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"profile": self.profile, "overrides": self.overrides}), encoding="utf-8")


def record_path(job: profiles.Job) -> Path:
    """Where the job's record lies, or will."""
    return records.path_of(job.notebook, job.parameters)


def make(profile: str, source: str = "", data_dir: str = "", backbone: str = "") -> Plan:
    """A validated plan; empty arguments keep what the profile says. InputError for anything unknown."""
    if data_dir and source != "directory":
        raise InputError("--data DIR goes with --source directory")
    given = {"source": source, "data_dir": data_dir, "backbone": backbone}
    asked = Plan(profile, {key: value for key, value in given.items() if value})
    # The validated values: a folder has become an absolute path, which means the same to whoever reads the plan later.
    valid = overview_job(asked).parameters
    plan = Plan(profile, {key: valid[key] for key in asked.overrides})
    for section in plan.sections():
        plan.section_job(section)
        plan.run_jobs(section)
    return plan


def overview_job(chosen: Plan) -> profiles.Job:
    """The scoreboard of this plan."""
    return profiles.page_job(chosen.profile, "overview", chosen.overrides)


def last() -> Plan:
    """The plan executed last, or the default profile if nothing has been executed yet."""
    path = paths.results() / "plan.json"
    if not path.is_file():
        return make("laptop")
    try:
        return Plan(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise InputError(f"{path}: not a plan; delete it, or run paperlib reproduce again") from None


def all_claims(plan: Plan) -> list[dict[str, Any]]:
    """Every claim of the three papers with its verdict under ``plan``; claims without evidence are ``not run``."""
    found = {section: section_record(plan, section) for section in plan.sections()}
    return [_row(plan, paper, claim, found) for paper in map(claims.load, claims.PAPERS) for claim in paper.claims]


def _row(
    plan: Plan, paper: claims.Paper, claim: claims.Claim, found: dict[str, records.Record | None]
) -> dict[str, Any]:
    notebook = paper.sections[claim.section].notebook
    record = found.get(notebook)
    given = {v["id"]: v for v in record.verdicts} if record else {}
    verdict = given.get(claim.id) or _without_evidence(plan, notebook)
    fields = ("ours", "interval", "n", "source", "backbone", "device", "verdict", "reason")
    return {
        **{"id": claim.id, "paper": paper.paper, "section": claim.section, "what": claim.what},
        **{"printed": claim.printed, "unit": claim.unit, "tolerance": claim.tolerance},
        **{name: verdict.get(name) for name in fields},
        "notebook": notebook,
        "command": verdict["command"] or record.provenance["command"],
    }


def section_record(plan: Plan, section: str) -> records.Record | None:
    """The section's record under this plan and the code as it is now, if it has been executed."""
    path = record_path(plan.section_job(section))
    return records.read(path) if path.is_file() else None


def _without_evidence(plan: Plan, notebook: str | None) -> dict[str, Any]:
    if notebook is None:
        reason, command = "this section has no notebook yet", plan.command()
    elif notebook not in plan.sections():
        reason, command = f"profile {plan.profile} leaves this section out", f"paperlib run {notebook}"
    else:
        reason, command = "this section has not been executed with the code as it is now", plan.command(notebook)
    return {"verdict": "not run", "reason": reason, "command": command}


def scoreboard(plan: Plan) -> list[dict[str, Any]]:
    """One row per appendix section: how its claims stand, and how many of its runs are done."""
    verdicts = all_claims(plan)
    return [
        _score(plan, paper, name, [row for row in verdicts if (row["paper"], row["section"]) == (paper.paper, name)])
        for paper in map(claims.load, claims.PAPERS)
        for name in paper.sections
    ]


def _score(plan: Plan, paper: claims.Paper, name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    section = paper.sections[name]
    wanted = (
        [record_path(job) for job in plan.run_jobs(section.notebook)] if section.notebook in plan.sections() else []
    )
    executed = section.notebook in plan.sections() and section_record(plan, section.notebook) is not None
    counted = Counter(row["verdict"] for row in rows)
    return {
        "paper": paper.paper,
        "section": name,
        "title": section.title,
        "verdicts": dict(counted) if rows else {"not run": 0},
        "runs": f"{sum(path.is_file() for path in wanted)} of {len(wanted)}"
        if wanted
        else "none needed"
        if section.notebook
        else "",
        "page": f"{section.notebook}.html" if executed else "",
    }
