"""Claims: what the appendices print, and the verdicts that evidence gives them."""

import math
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from paperlib import paths
from paperlib.errors import InputError
from paperlib.parameters.base import read_yaml, validated

Verdict = Literal["reproduced", "differs", "erratum", "shape only", "not run"]
PAPERS = ("s3delta", "lets", "dps")


class Claim(BaseModel):
    """One checkable thing an appendix prints.

    ``tolerance`` is absolute, in ``unit``; a printed text (an equation, a statement) has none or the tolerance at which it is
    checked numerically.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    section: str
    where: str
    what: str
    printed: float | str
    unit: str = ""
    tolerance: float | None = None


class AppendixSection(BaseModel):
    """One section of an appendix and the notebook that checks it, if there is one yet."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    title: str
    notebook: str | None


class Paper(BaseModel):
    """A paper's appendix as ``parameters/papers/<paper>.yaml`` lists it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    paper: str
    title: str
    venue: str
    sections: dict[str, AppendixSection]
    claims: list[Claim]


@cache
def load(paper: str) -> Paper:
    """The claims of one paper; InputError says what is wrong in the file."""
    if paper not in PAPERS:
        raise InputError(f"unknown paper {paper!r}; known: {', '.join(PAPERS)}")
    content = validated(Paper, f"papers/{paper}.yaml", read_yaml(paths.PARAMETERS / "papers" / f"{paper}.yaml"))
    ids = [claim.id for claim in content.claims]
    repeated = sorted({name for name in ids if ids.count(name) > 1})
    homeless = sorted({claim.section for claim in content.claims} - set(content.sections))
    if repeated or homeless:
        raise InputError(f"papers/{paper}.yaml: repeated ids {repeated}, claims in unlisted sections {homeless}")
    return content


class Book:
    """The claims of one appendix section, and the verdicts given to them so far.

    ``source``, ``backbone`` and ``device`` name what the evidence was made with and go into every verdict; ``elsewhere`` of a verdict
    names those that differ for it.
    """

    def __init__(self, paper: str, section: str, source: str, backbone: str, device: str):
        if section not in load(paper).sections:
            raise InputError(f"papers/{paper}.yaml has no section {section!r}")
        self.claims = {claim.id: claim for claim in load(paper).claims if claim.section == section}
        self.evidence = {"source": source, "backbone": backbone, "device": device}
        self._given: dict[str, dict[str, Any]] = {}

    def judge(
        self,
        id: str,
        ours: float,
        interval=None,
        n: int | None = None,
        reason: str = "",
        elsewhere: dict[str, str] | None = None,
    ) -> None:
        """A printed number against ours: ``reproduced`` within the claim's tolerance, else ``differs``."""
        claim = self._claim(id)
        if not isinstance(claim.printed, float) or claim.tolerance is None:
            raise InputError(f"claim {id} prints no number with a tolerance: use holds()")
        close = abs(ours - claim.printed) <= claim.tolerance * (1 + 1e-12)
        self._give(id, "reproduced" if close else "differs", ours, interval, n, reason, elsewhere=elsewhere)

    def holds(
        self,
        id: str,
        holds: bool,
        ours: Any,
        reason: str,
        scale: Literal["full", "reduced"] = "full",
        interval=None,
        n: int | None = None,
        elsewhere: dict[str, str] | None = None,
    ) -> None:
        """A printed statement: does it hold? At a reduced scale its shape alone can: ``shape only``."""
        verdict = "differs" if not holds else "reproduced" if scale == "full" else "shape only"
        self._give(id, verdict, ours, interval, n, reason, elsewhere=elsewhere)

    def erratum(self, id: str, ours: Any, reason: str) -> None:
        """The print is arithmetically wrong; ``reason`` shows the arithmetic."""
        self._give(id, "erratum", ours, None, None, reason)

    def not_run(self, id: str, reason: str, command: str) -> None:
        """No evidence here; ``command`` is what would make it."""
        self._give(id, "not run", None, None, None, reason, command)

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        """All verdicts, in the order the claims are printed. InputError if one is missing."""
        if missing := [id for id in self.claims if id not in self._given]:
            raise InputError(f"claims without a verdict: {', '.join(missing)}")
        return [self._given[id] for id in self.claims]

    def table(self) -> None:
        """Show printed against ours, verdict by verdict; what does not reproduce comes first."""
        import pandas as pd

        from paperlib import figures

        order = ("differs", "erratum", "not run", "shape only", "reproduced")
        rows = [
            {
                "where": self.claims[v["id"]].where,
                "claim": self.claims[v["id"]].what,
                "printed": _shown(self.claims[v["id"]].printed),
                "ours": _shown(v["ours"]),
                "interval": _shown(v["interval"]),
                "n": v["n"],
                "verdict": v["verdict"],
                "evidence": v["reason"] + self._elsewhere(v),
            }
            for v in sorted(self.verdicts, key=lambda v: order.index(v["verdict"]))
        ]
        # A column nothing is said in takes room from the evidence.
        frame = pd.DataFrame(rows).dropna(axis="columns", how="all")
        made_with = ", ".join(f"{name} {value}" for name, value in self.evidence.items())
        figures.table(frame, f"Printed beside ours ({made_with})", formats={"verdict": figures.verdict_badge})

    def _elsewhere(self, verdict: dict[str, Any]) -> str:
        other = [verdict[name] for name, value in self.evidence.items() if verdict[name] != value]
        return f" (made with {', '.join(other)})" if other else ""

    def _claim(self, id: str) -> Claim:
        if id not in self.claims:
            raise InputError(f"unknown claim {id!r}; this section has: {', '.join(self.claims)}")
        return self.claims[id]

    def _give(
        self, id, verdict: Verdict, ours, interval, n, reason: str, command: str | None = None, elsewhere=None
    ) -> None:
        self._claim(id)
        if not reason and verdict != "reproduced":
            raise InputError(f"claim {id}: a verdict {verdict!r} needs its reason")
        if unknown := sorted(set(elsewhere or {}) - set(self.evidence)):
            raise InputError(f"claim {id}: evidence has {', '.join(self.evidence)}, no {unknown[0]}")
        self._given[id] = {
            "id": id,
            "verdict": verdict,
            "ours": ours.item() if hasattr(ours, "item") else ours,
            "interval": _finite(interval),
            "n": n,
            "reason": reason,
            "command": command,
            **self.evidence,
            **(elsewhere or {}),
        }


def _finite(interval) -> list[float] | None:
    if interval is None or not all(math.isfinite(end) for end in interval):
        return None
    return [float(end) for end in interval]


def _shown(value: Any) -> str | None:
    if isinstance(value, list):
        return f"[{', '.join(_shown(end) for end in value)}]"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else None if value is None else str(value)
