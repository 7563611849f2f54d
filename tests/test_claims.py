"""Claims: every rule by which evidence becomes a verdict, and the lists of what the papers print."""

import json

import numpy as np
import pytest

from paperlib import claims, cli, paths
from paperlib.errors import InputError

PAPER = """
paper: dps
title: Made up
venue: Nowhere
sections:
  F: {title: Memory, notebook: dps/f_memory}
  G: {title: Other, notebook: null}
claims:
  - {id: dps.F.number, section: F, where: Table 1, what: a number, printed: 0.3, unit: "%", tolerance: 0.05}
  - {id: dps.F.exact, section: F, where: Table 1, what: rows, printed: 277, unit: rows, tolerance: 0}
  - {id: dps.F.shape, section: F, where: Figure 1, what: a shape, printed: largest}
  - {id: dps.G.other, section: G, where: eq. 1, what: an equation, printed: "x = y", tolerance: 1.0e-12}
"""


@pytest.fixture
def paper(tmp_path, monkeypatch):
    """Write the list of claims that stands in for a paper's."""
    monkeypatch.setattr(paths, "PARAMETERS", tmp_path)
    (tmp_path / "papers").mkdir()

    def written(text=PAPER):
        (tmp_path / "papers" / "dps.yaml").write_text(text)
        claims.load.cache_clear()

    written()
    yield written
    claims.load.cache_clear()


@pytest.fixture
def book(paper):
    return claims.Book("dps", "F", source="diagnostics", backbone="minilm", device="cpu")


def filled(book):
    book.judge("dps.F.number", 0.3)
    book.judge("dps.F.exact", 277)
    book.holds("dps.F.shape", True, ours="largest", reason="seen")
    return book


def verdict(book, id):
    return book._given[id]["verdict"]


@pytest.mark.parametrize(
    "ours, word",
    [(0.3, "reproduced"), (0.35, "reproduced"), (0.25, "reproduced"), (0.3501, "differs"), (0.2499, "differs")],
)
def test_a_number_reproduces_up_to_and_with_its_tolerance(book, ours, word):
    book.judge("dps.F.number", ours, reason="measured")
    assert verdict(book, "dps.F.number") == word


@pytest.mark.parametrize(
    "ours, word", [(277, "reproduced"), (278, "differs"), (276.999999, "differs"), (float("nan"), "differs")]
)
def test_tolerance_zero_means_exactly(book, ours, word):
    book.judge("dps.F.exact", ours, reason="counted")
    assert verdict(book, "dps.F.exact") == word


@pytest.mark.parametrize(
    "holds, scale, word",
    [
        (True, "full", "reproduced"),
        (True, "reduced", "shape only"),
        (False, "full", "differs"),
        (False, "reduced", "differs"),
    ],
)
def test_a_statement_holds_at_the_scale_it_was_tried(book, holds, scale, word):
    book.holds("dps.F.shape", holds, ours="seen", reason="because", scale=scale)
    assert verdict(book, "dps.F.shape") == word


def test_erratum_and_not_run(book):
    book.erratum("dps.F.number", ours=0.4, reason="0.1 x 4 = 0.4")
    book.not_run("dps.F.shape", reason="no GPU", command="paperlib reproduce paper")
    assert verdict(book, "dps.F.number") == "erratum"
    assert (verdict(book, "dps.F.shape"), book._given["dps.F.shape"]["command"]) == (
        "not run",
        "paperlib reproduce paper",
    )


def test_a_verdict_may_rest_on_evidence_of_another_device(book, monkeypatch):
    shown = []
    monkeypatch.setattr("paperlib.figures.table", lambda frame, caption, formats: shown.append(frame))
    other = {"device": "cuda: H100", "backbone": "bert-large-config"}
    book.judge("dps.F.number", 0.3, reason="measured", elsewhere=other)
    book.holds("dps.F.shape", True, ours="largest", reason="seen", elsewhere=other)
    book.judge("dps.F.exact", 277, reason="counted")
    number, exact, shape = book.verdicts
    assert number["device"] == shape["device"] == "cuda: H100" and number["backbone"] == "bert-large-config"
    assert (number["source"], exact["device"], exact["backbone"]) == ("diagnostics", "cpu", "minilm")
    book.table()
    assert shown[0].evidence.tolist()[:2] == ["measured (made with bert-large-config, cuda: H100)", "counted"]


def test_evidence_has_a_source_a_backbone_and_a_device_and_nothing_else(book):
    with pytest.raises(InputError, match="claim dps.F.number: evidence has source, backbone, device, no devise"):
        book.judge("dps.F.number", 0.3, elsewhere={"devise": "cuda"})


def test_a_text_has_no_distance(book):
    with pytest.raises(InputError, match=r"dps.F.shape prints no number with a tolerance: use holds\(\)"):
        book.judge("dps.F.shape", 1.0)


def test_all_but_reproduced_need_a_reason(book):
    book.judge("dps.F.number", 0.3)
    for give in (
        lambda: book.judge("dps.F.number", 0.9),
        lambda: book.holds("dps.F.shape", False, ours="", reason=""),
        lambda: book.holds("dps.F.shape", True, ours="", reason="", scale="reduced"),
        lambda: book.erratum("dps.F.number", ours=1, reason=""),
        lambda: book.not_run("dps.F.shape", reason="", command="x"),
    ):
        with pytest.raises(InputError, match="needs its reason"):
            give()


def test_no_claim_may_stay_without_a_verdict(book):
    book.judge("dps.F.number", 0.3)
    with pytest.raises(InputError, match="claims without a verdict: dps.F.exact, dps.F.shape"):
        _ = book.verdicts
    with pytest.raises(InputError, match="claims without a verdict"):
        book.table()


def test_verdicts_come_in_the_order_of_the_print_with_their_evidence(book):
    book.holds("dps.F.shape", True, ours="largest", reason="seen", interval=(1, 2), n=10)
    book.judge("dps.F.exact", np.int64(277))
    book.judge("dps.F.number", np.float32(0.25), interval=(0.2, float("inf")), n=1, reason="n = 1")
    number, exact, shape = book.verdicts
    assert [v["id"] for v in book.verdicts] == list(book.claims)
    assert number["interval"] is None, "an interval without an end is none"
    assert (type(exact["ours"]), shape["interval"], shape["n"]) == (int, [1.0, 2.0], 10)
    assert all((v["source"], v["backbone"], v["device"]) == ("diagnostics", "minilm", "cpu") for v in book.verdicts)
    json.dumps(book.verdicts, allow_nan=False)


def test_claims_of_another_section_are_unknown_here(book):
    assert list(book.claims) == ["dps.F.number", "dps.F.exact", "dps.F.shape"]
    for give in (lambda: book.judge("dps.G.other", 1.0), lambda: book.not_run("dps.G.other", reason="x", command="y")):
        with pytest.raises(InputError, match="unknown claim 'dps.G.other'; this section has: dps.F.number"):
            give()


def test_unknown_papers_and_sections_are_refused(paper):
    with pytest.raises(InputError, match="papers/dps.yaml has no section 'Z'"):
        claims.Book("dps", "Z", "none", "none", "cpu")
    with pytest.raises(InputError, match="unknown paper 'bert'; known: s3delta, lets, dps"):
        claims.load("bert")


def test_the_table_shows_first_what_does_not_reproduce(book, monkeypatch):
    shown = []
    monkeypatch.setattr("paperlib.figures.table", lambda frame, caption, formats: shown.append((frame, caption)))
    book.judge("dps.F.number", 0.3)
    book.judge("dps.F.exact", 278, reason="one more", interval=(277.5, 278.5), n=4)
    book.not_run("dps.F.shape", reason="no runs", command="x")
    book.table()
    ((frame, caption),) = shown
    assert frame.verdict.tolist() == ["differs", "not run", "reproduced"]
    assert frame.interval.tolist()[0] == "[277.5, 278.5]"
    assert "source diagnostics, backbone minilm, device cpu" in caption


@pytest.mark.parametrize(
    "before, after, told",
    [
        ("id: dps.F.exact", "id: dps.F.number", r"repeated ids \['dps.F.number'\]"),
        ("section: G, where", "section: H, where", r"claims in unlisted sections \['H'\]"),
        ("what: a shape, ", "", "papers/dps.yaml: claims.2.what: a value is needed"),
        ("unit: rows", "units: rows", "papers/dps.yaml: unknown parameter 'claims.1.units'"),
        ("printed: largest", "printed: [1]", "papers/dps.yaml: claims.2.printed"),
        ("paper: dps", "paper: [dps", r"dps.yaml, line \d+: not valid YAML"),
    ],
)
def test_a_mistake_in_the_list_is_told_with_its_place(paper, before, after, told):
    assert before in PAPER
    paper(PAPER.replace(before, after))
    with pytest.raises(InputError, match=told) as error:
        claims.load("dps")
    assert len(str(error.value).splitlines()) == 1


# --- the real lists


REAL = [(paper, claim) for paper in claims.PAPERS for claim in claims.load(paper).claims]


def test_every_paper_has_its_list():
    listed = {path.stem for path in (paths.PARAMETERS / "papers").glob("*.yaml")}
    assert listed == set(claims.PAPERS)
    assert all(claims.load(paper).paper == paper and claims.load(paper).claims for paper in claims.PAPERS)


def test_ids_are_unique_and_say_paper_and_section():
    assert len({claim.id for _, claim in REAL}) == len(REAL)
    for paper, claim in REAL:
        assert claim.id.split(".")[:2] == [paper, claim.section.replace(".", "")]


@pytest.mark.parametrize("paper, claim", REAL, ids=lambda value: getattr(value, "id", ""))
def test_a_claim_can_be_checked(paper, claim):
    assert claim.what and claim.where and claim.printed != ""
    assert claim.tolerance is None or claim.tolerance >= 0
    if isinstance(claim.printed, float):
        assert claim.tolerance is not None and claim.unit, "a number is judged in its unit"


FIELDS = "id paper section what printed unit tolerance ours interval n source backbone device verdict reason notebook command"


def claims_json(capsys) -> list[dict]:
    assert cli.main(["claims", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_has_every_claim_once_with_exactly_the_agreed_fields(workspace, capsys):
    rows = claims_json(capsys)
    assert [row["id"] for row in rows] == [claim.id for _, claim in REAL]
    assert all(list(row) == FIELDS.split() for row in rows)


def test_before_anything_ran_every_claim_is_not_run_with_a_command_that_could(workspace, capsys):
    for row in claims_json(capsys):
        assert row["verdict"] == "not run" and row["reason"]
        assert row["command"] == f"paperlib reproduce laptop --only {row['notebook']}"


def test_the_table_has_a_line_for_every_claim(workspace, capsys):
    assert cli.main(["claims"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(REAL) and all("not run" in line for line in lines)
