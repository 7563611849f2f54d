"""The plan: a profile with the reader's choice, and how its claims stand."""

import json

import pytest

from paperlib import claims, parameters, plan, records
from paperlib.errors import InputError

SMOKE = plan.Plan("smoke", {})


def execute(job, verdicts=(), results=None):
    """Leave a record as if the job had run."""
    path = plan.record_path(job)
    stamp = {"command": records.command(job.notebook, job.parameters)}
    kept = records.Record(notebook=job.notebook, parameters=job.parameters, results=results or {}, provenance=stamp)
    records.write(path, kept.model_copy(update={"verdicts": list(verdicts)}))
    return path


def verdict(id, word, **fields):
    return {
        "id": id,
        "verdict": word,
        "ours": 1.0,
        "reason": "r",
        "source": "s",
        "backbone": "b",
        "device": "d",
        "command": None,
        **fields,
    }


def test_empty_arguments_keep_what_the_profile_says():
    assert plan.make("smoke") == SMOKE


def test_overrides_reach_sections_and_runs(workspace, tmp_path):
    chosen = plan.make("smoke", "directory", str(tmp_path), "tiny-bert")
    wanted = {"source": "directory", "data_dir": str(tmp_path), "backbone": "tiny-bert"}
    section = chosen.section_job("dps/a_case_study").parameters
    assert {key: section[key] for key in wanted} == wanted
    assert all({key: job.parameters[key] for key in wanted} == wanted for job in chosen.run_jobs("dps/a_case_study"))
    assert plan.record_path(plan.overview_job(chosen)) != plan.record_path(plan.overview_job(SMOKE))


def test_folders_are_remembered_as_absolute_paths(tmp_path, monkeypatch):
    (tmp_path / "rows").mkdir()
    (tmp_path / "bert").mkdir()
    monkeypatch.chdir(tmp_path)
    chosen = plan.make("smoke", "directory", "rows", "./bert")
    assert chosen.overrides == {
        "source": "directory",
        "data_dir": str(tmp_path / "rows"),
        "backbone": str(tmp_path / "bert"),
    }


@pytest.mark.parametrize(
    "given, told",
    [
        (("smok",), "unknown profile 'smok'.*did you mean 'smoke'"),
        (("smoke", "hub", "x"), "--data DIR goes with --source directory"),
        (("smoke", "", "x"), "--data DIR goes with --source directory"),
        (("smoke", "directory"), "source 'directory' needs data_dir"),
        (("smoke", "directory", "nowhere"), "data_dir 'nowhere' is not a folder"),
        (("smoke", "", "", "minilmm"), "unknown backbone 'minilmm'"),
        (("smoke", "disk"), "source: "),
    ],
)
def test_whatever_is_unknown_is_refused(given, told):
    with pytest.raises(InputError, match=told):
        plan.make(*given)


def test_a_run_that_two_sections_share_comes_once():
    section = "dps/a_case_study"
    assert len(SMOKE.runs([section, section])) == len(SMOKE.run_jobs(section)) == 4


def test_what_is_unfinished_comes_in_the_order_that_executes_it(workspace):
    sections = ["performance/throughput", "dps/a_case_study"]
    wanted = [job.notebook for job in SMOKE.unfinished(sections)]
    assert wanted == ["runs/finetune"] * 4 + ["dps/a_case_study", "performance/throughput"]
    execute(SMOKE.run_jobs("dps/a_case_study")[0])
    execute(SMOKE.section_job("dps/a_case_study"))
    assert [job.notebook for job in SMOKE.unfinished(sections)] == ["runs/finetune"] * 3 + ["performance/throughput"]


def test_the_plan_executed_last_is_the_one_shown(workspace, tmp_path):
    assert plan.last() == plan.Plan("laptop", {})
    chosen = plan.make("smoke", "directory", str(tmp_path), "tiny-bert")
    chosen.save()
    assert plan.last() == chosen


def test_a_plan_file_that_cannot_be_read_is_told(workspace):
    SMOKE.save()
    for text in ("", "{}", '{"profile": 1'):
        (workspace / "results" / "plan.json").write_text(text)
        with pytest.raises(InputError, match="plan.json: .*; delete it"):
            plan.last()


def test_a_verdict_is_shown_with_its_evidence(workspace):
    path = execute(
        SMOKE.section_job("dps/a_case_study"), [verdict("dps.A.figure1.easy", "shape only", interval=[0.0, 2.0], n=2)]
    )
    row = next(row for row in plan.all_claims(SMOKE) if row["id"] == "dps.A.figure1.easy")
    assert (row["verdict"], row["interval"], row["n"]) == ("shape only", [0.0, 2.0], 2)
    assert (row["source"], row["backbone"], row["device"], row["ours"]) == ("s", "b", "d", 1.0)
    assert row["command"] == records.read(path).provenance["command"]


def test_a_command_given_with_the_verdict_is_kept(workspace):
    execute(
        SMOKE.section_job("dps/a_case_study"),
        [verdict("dps.A.figure1.easy", "not run", command="paperlib reproduce paper")],
    )
    row = next(row for row in plan.all_claims(SMOKE) if row["id"] == "dps.A.figure1.easy")
    assert (row["verdict"], row["command"]) == ("not run", "paperlib reproduce paper")


def test_a_claim_its_section_did_not_judge_is_not_run(workspace):
    execute(SMOKE.section_job("dps/a_case_study"))
    row = next(row for row in plan.all_claims(SMOKE) if row["id"] == "dps.A.figure1.easy")
    assert row["verdict"] == "not run" and row["reason"] and row["command"].startswith("paperlib ")


def test_no_verdict_is_ever_blank_and_not_run_always_names_what_would(workspace, monkeypatch):
    left_out = "lets/a1_metrics"
    kept = [name for name in SMOKE.sections() if name != left_out]
    monkeypatch.setattr(plan.Plan, "sections", lambda self: kept)
    without = claims.load("dps").model_copy(deep=True)
    monkeypatch.setitem(without.sections, "B", without.sections["B"].model_copy(update={"notebook": None}))
    real = claims.load
    monkeypatch.setattr(claims, "load", lambda name: without if name == "dps" else real(name))
    rows = plan.all_claims(SMOKE)
    assert {row["verdict"] for row in rows} == {"not run"}
    for row in rows:
        command = {left_out: f"paperlib run {left_out}", None: "paperlib reproduce smoke"}.get(
            row["notebook"], f"paperlib reproduce smoke --only {row['notebook']}"
        )
        assert row["reason"] and row["command"] == command


def test_every_section_has_a_row_on_the_scoreboard(workspace):
    board = plan.scoreboard(SMOKE)
    listed = [(paper, name) for paper in claims.PAPERS for name in claims.load(paper).sections]
    assert [(row["paper"], row["section"]) for row in board] == listed
    assert all(row["verdicts"] and set(row["verdicts"]) == {"not run"} and not row["page"] for row in board)


def test_the_scoreboard_counts_verdicts_and_runs_and_links_the_page(workspace):
    section = "dps/a_case_study"
    for job in SMOKE.run_jobs(section)[:3]:
        execute(job)
    execute(
        SMOKE.section_job(section), [verdict("dps.A.figure1.easy", "differs"), verdict("dps.A.figure1.hard", "differs")]
    )
    row = next(row for row in plan.scoreboard(SMOKE) if (row["paper"], row["section"]) == ("dps", "A"))
    others = sum(claim.section == "A" for claim in claims.load("dps").claims) - 2
    assert row["verdicts"] == {"differs": 2, "not run": others}
    assert (row["runs"], row["page"]) == ("3 of 4", "dps/a_case_study.html")
    lets = next(row for row in plan.scoreboard(SMOKE) if (row["paper"], row["section"]) == ("lets", "D"))
    assert lets["runs"] == "none needed"


def test_the_command_of_a_plan_makes_the_same_plan(workspace, tmp_path, monkeypatch):
    from paperlib import cli, grid, pages

    made = []
    monkeypatch.setattr(grid, "reproduce", lambda chosen, sections, *_: made.append((chosen, sections)) or [])
    monkeypatch.setattr(pages, "render", lambda chosen: tmp_path)
    chosen = plan.make("smoke", "directory", str(tmp_path), "tiny-bert")
    assert cli.main(chosen.command("lets/a1_metrics").split()[1:]) == 0
    assert made == [(chosen, ["lets/a1_metrics"])]


def test_json_of_a_plan_is_plain(workspace, tmp_path):
    plan.make("smoke", "directory", str(tmp_path)).save()
    stored = json.loads((workspace / "results" / "plan.json").read_text())
    assert stored == {"profile": "smoke", "overrides": {"source": "directory", "data_dir": str(tmp_path)}}


def test_defaults_of_a_section_are_those_of_the_default_profile():
    """Opened in JupyterLab as it is, a section shows what `make report` made."""
    laptop = plan.Plan("laptop", {})
    for section in laptop.sections():
        assert laptop.section_job(section).parameters == parameters.resolve(section, {}).model_dump()
    assert plan.overview_job(laptop).parameters == parameters.resolve("overview", {}).model_dump()
