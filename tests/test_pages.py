"""Which executed notebooks become pages, and when the scoreboard is executed anew."""

import pytest

from paperlib import pages, paths, plan, records, runs
from paperlib.report import Page

SMOKE = plan.Plan("smoke", {})


@pytest.fixture
def rendered(workspace, monkeypatch):
    """``render(plan)``: the pages handed to the report and the index among them; notebooks are not really executed."""
    handed = []
    monkeypatch.setattr(pages, "render_pages", lambda found, out, index: handed.append((found, out, index)))
    monkeypatch.setattr(
        runs, "_papermill", lambda notebook, parameters, output, progress: executed(notebook, parameters)
    )

    def executed(notebook, parameters):
        run = records.begin(notebook, parameters)
        run.finish({"time": len(handed)})
        (run.folder / runs.EXECUTED).write_text("{}")
        return run.path

    def render(chosen=SMOKE) -> tuple[list[Page], Page]:
        assert pages.render(chosen) == workspace / "reports" / "index.html"
        found, out, index = handed[-1]
        assert out == paths.reports()
        return found, index

    render.execute = lambda job: executed(job.notebook, job.parameters)
    return render


def test_with_nothing_executed_there_is_only_the_scoreboard(rendered):
    found, index = rendered()
    assert found == []
    assert (index.output, index.kind, index.notebook.is_file()) == ("index.html", "overview", True)


def test_executed_sections_and_runs_become_pages(rendered):
    job = SMOKE.run_jobs("dps/a_case_study")[0]
    run, section = rendered.execute(job), rendered.execute(SMOKE.section_job("dps/a_case_study"))
    rendered.execute(SMOKE.section_job("performance/throughput"))
    found, _ = rendered()
    assert [(page.output, page.kind) for page in found] == [
        ("dps/a_case_study.html", "section"),
        (f"runs/finetune/{run.parent.name}.html", "run"),
        ("performance/throughput.html", "performance"),
    ]
    assert found[0].notebook == section.parent / runs.EXECUTED and found[0].record == section


def test_a_failed_run_has_a_page_too(rendered):
    path = plan.record_path(SMOKE.run_jobs("dps/a_case_study")[0])
    path.parent.mkdir(parents=True)
    (path.parent / runs.EXECUTED).write_text("{}")
    found, _ = rendered()
    assert [page.kind for page in found] == ["run"] and not found[0].record.is_file()


def test_the_scoreboard_is_executed_anew_only_when_a_section_came_changed_or_went(rendered):
    def time_of_the_scoreboard():
        return records.read(rendered()[1].record).results["time"]

    assert time_of_the_scoreboard() == 0
    assert time_of_the_scoreboard() == 0
    section = rendered.execute(SMOKE.section_job("lets/a1_metrics"))
    assert time_of_the_scoreboard() == 2
    assert time_of_the_scoreboard() == 2
    rendered.execute(SMOKE.section_job("lets/a1_metrics"))
    assert time_of_the_scoreboard() == 4
    section.unlink()
    assert time_of_the_scoreboard() == 5
