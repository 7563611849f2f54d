"""Recipes: tables that fill in what nobody set, searches whole or thinned, and the paper's own file."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlib import claims, parameters, paths
from paperlib.errors import InputError
from paperlib.parameters import profiles, recipes

TINY = """
tables:
  small:
    title: Small
    by: task
    rows:
      rte: {values: {epochs: 10, learning_rate: 2.0e-5}, source: made up}
      all: {values: {epochs: 3}, source: made up}
  methods:
    title: Methods
    by: method
    rows:
      vanilla: {values: {}, source: made up}
      mixout: {values: {p: 0.5, learning_rate: 4.0e-5, preset: paper}, source: made up}
search:
  mixout: {p: [0.1, 0.5, 0.9], learning_rate: [2.0e-5, 4.0e-5]}
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write ``recipes/tiny.yaml`` in a parameters folder of our own; the file as it is above is there already."""
    (tmp_path / "recipes").mkdir()
    monkeypatch.setattr(paths, "PARAMETERS", tmp_path)

    def written(text=TINY):
        (tmp_path / "recipes" / "tiny.yaml").write_text(text)
        recipes.load.cache_clear()

    written()
    yield written
    recipes.load.cache_clear()


# --- filling in


def test_a_table_adds_what_the_point_does_not_set(write):
    assert recipes.fill(["tiny.small"], {"task": "rte", "seed": 1, "epochs": 2}) == {
        "task": "rte",
        "seed": 1,
        "epochs": 2,
        "learning_rate": 2e-5,
    }


def test_the_row_all_fits_every_other_value(write):
    assert recipes.fill(["tiny.small"], {"task": "cola"}) == {"task": "cola", "epochs": 3}


def test_of_two_tables_the_first_is_heard(write):
    point = {"task": "rte", "method": "mixout"}
    assert recipes.fill(["tiny.methods", "tiny.small"], point)["learning_rate"] == 4e-5
    assert recipes.fill(["tiny.small", "tiny.methods"], point)["learning_rate"] == 2e-5


def test_without_tables_a_point_stays_as_it_is(write):
    assert recipes.fill([], {"epochs": 2}) == {"epochs": 2}


@pytest.mark.parametrize(
    "table, point, told",
    [
        ("tiny.small", {"seed": 0}, "recipe 'tiny.small' goes by task; give one"),
        (
            "tiny.methods",
            {"method": "r3f"},
            "recipe 'tiny.methods' has no row for method 'r3f'; it has: vanilla, mixout",
        ),
    ],
)
def test_a_point_a_table_has_nothing_for_is_refused(write, table, point, told):
    with pytest.raises(InputError, match=told):
        recipes.fill([table], point)


# --- searching


def test_a_grid_is_the_product_of_its_values_with_the_method_s_other_defaults(write):
    grid = recipes.load("tiny").grid("mixout")
    assert [(point["p"], point["learning_rate"]) for point in grid] == list(
        itertools.product((0.1, 0.5, 0.9), (2e-5, 4e-5))
    )
    assert all(point["method"] == "mixout" and point["preset"] == "paper" for point in grid)


def test_a_value_of_the_profile_s_own_takes_the_searched_one_s_place(write):
    points = recipes.Search(recipes="tiny").points({"learning_rate": 1e-3, "task": "rte"})
    assert [point["p"] for point in points] == [0.1, 0.5, 0.9]
    assert all(point["learning_rate"] == 1e-3 and point["task"] == "rte" for point in points)


def test_left_out_values_are_not_tried(write):
    points = recipes.Search(recipes="tiny", leave_out={"p": [0.9], "learning_rate": [2e-5]}).points({})
    assert [point["p"] for point in points] == [0.1, 0.5]


@given(configurations=st.integers(1, 8), seed=st.integers(0, 20))
def test_a_thinned_search_is_some_of_the_grid_the_default_among_it(configurations, seed):
    for method, size in {"mixout": 8, "re_init": 7, "r_dropout": 5}.items():
        thinned = recipes.Search(recipes="dps", methods=[method], configurations=configurations, seed=seed)
        points, whole = thinned.points({}), recipes.load("dps").grid(method)
        usual = recipes.fill(["dps.methods"], {"method": method})
        assert len(points) == min(configurations, size) and usual in points
        assert [point for point in whole if point in points] == points, "in the grid's order, each once"
        assert thinned.points({}) == points


def test_the_draw_of_one_method_is_its_own():
    together = recipes.Search(recipes="dps", configurations=2).points({})
    alone = recipes.Search(recipes="dps", methods=["dps_mix"], configurations=2).points({})
    assert [point for point in together if point["method"] == "dps_mix"] == alone


def test_other_seeds_draw_others():
    drawn = {
        str(recipes.Search(recipes="dps", methods=["dps_mix"], configurations=2, seed=s).points({})) for s in range(9)
    }
    assert len(drawn) > 1


def test_without_a_default_left_all_are_drawn(write):
    points = recipes.Search(recipes="tiny", leave_out={"p": [0.5]}, configurations=3).points({})
    assert len(points) == 3 and all(point["p"] != 0.5 for point in points)


def test_a_grid_may_vary_the_row_of_any_table_and_names_what_picks_it(write):
    write(TINY + "  small.rte: {learning_rate: [2.0e-5, 3.0e-5]}\n  small.all: {epochs: [3, 5]}\n")
    assert recipes.load("tiny").grid("small.rte") == [
        {"task": "rte", "epochs": 10, "learning_rate": rate} for rate in (2e-5, 3e-5)
    ]
    assert recipes.load("tiny").grid("small.all") == [{"epochs": 3}, {"epochs": 5}], "the row all is picked by no value"
    thinned = recipes.Search(recipes="tiny", methods=["small.rte"], configurations=1)
    assert thinned.points({"seed": 7}) == [{"task": "rte", "epochs": 10, "learning_rate": 2e-5, "seed": 7}]


# --- mistakes


@pytest.mark.parametrize(
    "text, told",
    [
        (TINY.replace("by: task", "bye: task"), r"recipes/tiny.yaml: .*tables\.small\.b"),
        (TINY.replace("p: [0.1, 0.5, 0.9]", "p: [0.1, 0.9]"), "tiny.yaml: methods.mixout: the default of p is none"),
        (TINY.replace("  mixout: {p: [", "  r3f: {p: ["), "tiny.yaml: search has 'r3f', which has no default"),
        (
            TINY + "  small.cola: {epochs: [1]}\n",
            "tiny.yaml: search has 'cola', which has no default in the table 'small'",
        ),
        (TINY + "  small.all: {epochs: [1]}\n", "tiny.yaml: small.all: the default of epochs is none"),
        (TINY.replace("[2.0e-5, 4.0e-5]", "[]"), r"tiny.yaml: search\.mixout\.learning_rate: .*at least 1 item"),
        (TINY.replace("source: made up}", "sauce: made up}", 1), r"tiny.yaml: .*rows\.rte"),
        ("tables: [", "tiny.yaml, line 1: not valid YAML"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_place(write, text, told):
    write(text)
    with pytest.raises(InputError, match=told) as error:
        recipes.load("tiny")
    assert "\n" not in str(error.value)


def test_unknown_recipes_are_told_with_the_known_ones(write):
    with pytest.raises(InputError, match=r"unknown recipes 'tinny' \(did you mean 'tiny'\?\); known: tiny"):
        recipes.load("tinny")


# --- the DPS appendix


def dps() -> recipes.Recipes:
    return recipes.load("dps")


def table2() -> dict[tuple[str, str], recipes.Row]:
    """(model, task) -> row, for the models Table 2 lists."""
    named = {claim.id.split(".")[3] for claim in claims.load("dps").claims if claim.id.startswith("dps.C.table2.")}
    return {(name, task): row for name in named for task, row in dps().tables[name].rows.items()}


def test_table_2_as_the_runs_read_it_is_table_2_as_printed():
    printed = {claim.id: claim for claim in claims.load("dps").claims}
    rows = table2()
    assert len(rows) == 17
    for (model, task), row in rows.items():
        id, values = f"dps.C.table2.{model}.{task}", row.values
        length, warmup = printed[f"{id}.length"], printed[f"{id}.warmup"]
        assert values["batch_size"] == printed[f"{id}.batch_size"].printed
        assert values["learning_rate"] == printed[f"{id}.learning_rate"].printed
        assert values[length.unit] == length.printed and {"epochs", "steps"} & set(values) == {length.unit}
        found = values["warmup_steps"] if warmup.unit == "steps" else 100 * values["warmup_ratio"]
        assert found == pytest.approx(warmup.printed)
        assert values.get("layer_decay", "-") == printed[f"{id}.layer_decay"].printed


def test_every_entry_of_table_2_has_a_claim():
    fields = ("batch_size", "learning_rate", "length", "warmup", "layer_decay")
    expected = {f"dps.C.table2.{model}.{task}.{field}" for model, task in table2() for field in fields}
    stated = {claim.id for claim in claims.load("dps").claims if claim.where == "Table 2"}
    assert expected == stated - {"dps.C.table2.deberta.name"}


def test_the_searched_values_are_the_printed_ones_and_every_grid_has_its_size():
    letters = {"N": "normal", "U": "uniform"}
    printed = {
        claim.id: claim.printed.strip("{}").split(", ") for claim in claims.load("dps").claims if claim.section == "D"
    }
    found = {f"dps.D.{m}.{name}": values for m, grid in dps().search.items() for name, values in grid.items()}
    assert set(found) == set(printed)
    for id, values in found.items():
        assert values == [letters[value] if value in letters else float(value) for value in printed[id]]
    sizes = {method: len(dps().grid(method)) for method in dps().search}
    assert list(sizes.values()) == [8, 8, 7, 15, 5, 15, 15] and all(
        sizes[method] == math.prod(map(len, grid.values())) for method, grid in dps().search.items()
    )


def test_official_values_are_numbers_in_the_runs_own_names():
    known = set(parameters.MODELS["runs/finetune"].model_fields)
    for table in dps().tables.values():
        for row in table.rows.values():
            assert set(row.values) <= known and set(row.official) <= known | {"max_length", "start"}
            numbers = {name: value for name, value in row.official.items() if name not in ("start", "precision")}
            assert all(isinstance(value, (int, float)) for value in numbers.values())
            assert not row.official or "/" in row.source, "repository: file"


@pytest.mark.parametrize("task", ["rte", "mrpc", "stsb", "cola"])
def test_every_recipe_makes_a_valid_run(task):
    for name, table in dps().tables.items():
        for key in table.rows:
            point = {"task": task} if table.by == "task" else {"task": task, "method": key}
            resolved = parameters.resolve("runs/finetune", recipes.fill([f"dps.{name}"], point))
            assert resolved.task == task


def test_every_method_there_is_has_a_default():
    from paperlib.parameters.runs import METHODS

    assert set(dps().tables["methods"].rows) == set(METHODS)


def test_every_configuration_of_every_search_is_a_valid_run():
    for method in dps().search:
        for point in dps().grid(method):
            assert parameters.resolve("runs/finetune", {"task": "rte", **point}).method == method


def test_stages_of_the_bert_recipe_are_those_of_the_published_script():
    """T = 468, 690, 1080, 1605 as in its list of steps; us = int(T ur)."""
    from paperlib import tasks
    from paperlib.dps.clock import StageClock
    from paperlib.training import Settings

    expected = {"rte": (23, 46, 93), "mrpc": (34, 69, 138), "stsb": (54, 108, 216), "cola": (80, 160, 321)}
    totals = []
    for task, stages in expected.items():
        given = parameters.resolve("runs/finetune", recipes.fill(["dps.bert"], {"task": task}))
        totals.append(Settings.of(given).total_steps(tasks.get(task).published["train"]))
        assert tuple(StageClock(totals[-1], ur).stage_steps for ur in (0.05, 0.1, 0.2)) == stages
    assert totals == [468, 690, 1080, 1605]


def test_the_whole_search_runs_at_the_papers_scale():
    jobs = profiles.run_jobs("paper", "dps/d_method_search", {})
    searched = [job.parameters for job in jobs if job.parameters["method"] in dps().search]
    assert len({job["seed"] for job in searched}) == 10 and len(searched) == 10 * sum(
        len(dps().grid(m)) for m in dps().search
    )
    assert {job["batch_size"] for job in searched} == {16} and {job["epochs"] for job in searched} == {3}
    rates = {job["learning_rate"] for job in searched if job["method"] != "child_tuning_d"}
    assert rates == {dps().tables["bert"].rows["all"].values["learning_rate"]}


# --- the S3Delta appendix


PHASES, FIELDS = ("search", "retrain"), ("batch_size", "epochs", "interval")


def s3delta() -> recipes.Recipes:
    return recipes.load("s3delta")


def table3(task: str, phase: str) -> recipes.Row:
    return s3delta().tables[phase].rows[task]


def test_table_3_as_the_runs_read_it_is_table_3_as_printed():
    printed = {claim.id: claim.printed for claim in claims.load("s3delta").claims if claim.where == "Table 3"}
    found = {
        f"s3delta.B2.table3.{task}.{phase}.{field}": row.values[field]
        for phase in PHASES
        for task, row in s3delta().tables[phase].rows.items()
        for field in FIELDS
        if task != "rte"
    }
    assert found == printed and len(found) == 84


@pytest.mark.parametrize("phase", PHASES)
def test_the_two_sources_of_rte_are_one_row(phase):
    """The appendix counts RTE among SuperGLUE's tasks; GLUE has the same rows."""
    assert table3("rte", phase).values == table3("superglue_rte", phase).values
    assert table3("rte", phase).official == table3("superglue_rte", phase).official


def test_six_tasks_have_other_values_in_the_published_scripts():
    differing = {
        (task, phase, field)
        for phase in PHASES
        for task, row in s3delta().tables[phase].rows.items()
        for field in FIELDS
        if row.values[field] != row.official[field] and task != "rte"
    }
    assert {task for task, _, _ in differing} == {"stsb", "cb", "multirc", "record", "superglue_rte", "wic"}
    assert len(differing) == 15
    copied = {f: table3("copa", "search").official[f] for f in FIELDS}
    assert copied == {f: table3("multirc", "search").official[f] for f in FIELDS}, "MultiRC's script has COPA's numbers"


def test_the_text_s_values_are_what_it_says_was_selected_and_among_those_tried():
    printed = {claim.id.removeprefix("s3delta.B2."): claim.printed for claim in claims.load("s3delta").claims}
    usual = s3delta().tables["every_run"].rows["all"].values
    for name, values in s3delta().search["every_run.all"].items():
        assert usual[name] == printed[f"selected.{name}"]
        assert values == [float(value) for value in printed[f"grid.{name}"].strip("{}").split(", ")]
    assert usual["beta"] == printed["beta"]
    rates = s3delta().search["placements.fine_tuning"]["learning_rate"]
    assert rates == [float(value) for value in printed["fine_tuning.grid"].strip("{}").split(", ")]
    assert s3delta().usual("placements.fine_tuning") == {"placement": "fine_tuning", "learning_rate": 3e-5}
    assert len(s3delta().grid("every_run.all")) == 36


def test_every_row_makes_a_valid_search_or_training_as_long_as_printed():
    from paperlib.s3delta.search import Settings

    for task in s3delta().tables["search"].rows:
        searched = parameters.resolve(
            "runs/search", recipes.fill(["s3delta.search", "s3delta.every_run"], {"task": task})
        )
        assert (searched.steps, searched.alpha_learning_rate, searched.learning_rate) == (0, 0.1, 3e-4)
        assert Settings.of(searched, 1.0).total_steps(2490) == searched.epochs * -(-1245 // searched.batch_size)
        for placement in s3delta().tables["placements"].rows:
            tables, point = ["s3delta.retrain", "s3delta.placements"], {"task": task, "placement": placement}
            trained = parameters.resolve("runs/delta_tuning", recipes.fill(tables, point))
            assert (trained.steps, trained.epochs) == (0, table3(task, "retrain").values["epochs"])
            assert trained.learning_rate == (3e-5 if placement == "fine_tuning" else 3e-4)


def test_every_placement_there_is_has_a_learning_rate():
    from paperlib.parameters.runs import PLACEMENTS

    assert set(s3delta().tables["placements"].rows) == set(PLACEMENTS)


def test_every_configuration_of_the_pre_experiments_is_a_valid_run():
    for point in s3delta().grid("every_run.all"):
        for task in ("boolq", "sst2"):
            filled = recipes.fill(["s3delta.search"], {"task": task, **point})
            assert parameters.resolve("runs/search", filled).tau == point["tau"]
    for point in s3delta().grid("placements.fine_tuning"):
        assert parameters.resolve("runs/delta_tuning", {"task": "rte", **point}).placement == "fine_tuning"


def test_the_published_code_selects_by_the_metric_of_table_4_but_on_two_tasks():
    from paperlib import tasks

    others = {
        task
        for task, row in s3delta().tables["search"].rows.items()
        if row.official["metric"] != tasks.get(task).metrics[0]
    }
    assert others == {"cb", "record"}
    assert all(
        row.official["metric"] in tasks.get(task).metrics for task, row in s3delta().tables["search"].rows.items()
    )
