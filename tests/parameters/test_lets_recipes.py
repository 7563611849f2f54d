"""The recipes of LeTS: Table 4 and the text of A.2 as printed, and every row a valid run."""

import pytest

from paperlib import claims, parameters
from paperlib.parameters import recipes

FIELDS = ("epochs", "batch_size", "bias_learning_rate", "learning_rate", "warmup_steps")
CUT = "qqp"


@pytest.fixture
def printed():
    return {c.id.removeprefix("lets.A2."): c.printed for c in claims.load("lets").claims if c.section == "A.2"}


def table(name):
    return recipes.load("lets").tables[name].rows


def test_table_4_as_the_runs_read_it_is_table_4_as_printed(printed):
    found = {
        f"table4.{task}.{field}": row.values[field]
        for task, row in table("tune").items()
        if task != CUT
        for field in FIELDS
    }
    stated = {id: value for id, value in printed.items() if id.startswith("table4.") and f".{CUT}." not in id}
    assert found == stated and len(found) == 35


def test_what_is_seen_of_the_cut_column_agrees_and_the_rest_is_marked(printed):
    row = table("tune")[CUT]
    assert row.source == "inferred" and "inferred" in row.note
    assert str(row.values["warmup_steps"]).startswith(printed["table4.qqp.warmup_steps"])
    for rate in ("bias_learning_rate", "learning_rate"):
        assert f"{row.values[rate]:.0e}".startswith(printed[f"table4.qqp.{rate}"])
    others = [table("tune")[task].values for task in ("mnli", "qnli", "sst2")]
    for field in ("epochs", "batch_size", "bias_learning_rate", "learning_rate"):
        assert {values[field] for values in others} == {row.values[field]}


def test_warm_up_counts_are_fairseq_s_on_the_large_tasks_and_on_no_other():
    same = {
        t
        for t, row in table("tune").items()
        if row.values["warmup_steps"] == table("fairseq")[t].values["warmup_steps"]
    }
    assert same == {"mnli", "qnli", "sst2", "qqp"} and table("fairseq").keys() == table("tune").keys()


def test_fairseq_s_numbers_are_those_the_recipes_of_dps_read_there():
    for task, row in recipes.load("dps").tables["roberta"].rows.items():
        if row.official.get("warmup_steps"):
            assert row.official.items() >= table("fairseq")[task].values.items(), task


def test_the_search_is_as_printed(printed):
    values = table("search")["all"].values
    for name in ("temperature", "alpha", "beta", "alpha_learning_rate"):
        assert values[name] == printed[name]
    assert values["length"] == printed["max_length"]
    assert values["patience"] / 10 == printed["patience"]
    assert values["learning_rate"] == values["bias_learning_rate"] == printed["search_learning_rate"]


@pytest.mark.parametrize("task", ["qnli", "sst2", "mnli", "cola", "mrpc", "stsb", "rte", "qqp"])
def test_every_row_makes_a_valid_search_and_a_valid_training(task):
    search = parameters.resolve("runs/sharing_search", recipes.fill(["lets.search"], {"task": task}))
    assert search.alpha_learning_rate == 5e-4
    for method in table("methods"):
        chosen = ["lets.methods", "lets.tune", "lets.every_run"]
        run = parameters.resolve("runs/sharing", recipes.fill(chosen, {"task": task, "method": method}))
        assert run.warmup_steps == table("tune")[task].values["warmup_steps"] and run.k == 0.005
        assert run.learning_rate == table("methods")[method].values.get("learning_rate", 2e-5)


def test_every_method_there_is_has_a_row():
    from paperlib.parameters.runs import SHARING

    assert set(table("methods")) == set(SHARING)


def test_what_methods_are_given_is_what_their_sources_set():
    for name, row in table("methods").items():
        assert all(row.values.get(field, value) == value for field, value in row.official.items()), name
