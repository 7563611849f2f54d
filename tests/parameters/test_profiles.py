"""Profiles: a grid is the full product of its values; fixed values stay, whatever the reader asks for."""

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlib import paths
from paperlib.errors import InputError
from paperlib.parameters import profiles

TINY = """
description: tiny
needs: nothing
minutes: 1
defaults: {source: hub, backbone: minilm, data_dir: ""}
sections:
  dps/a_case_study:
    runs:
      - notebook: runs/finetune
        parameters: {task: rte, epochs: 1}
        grid: {method: [vanilla, dps_dense], seed: [0, 1, 2]}
      - notebook: runs/finetune
        parameters: {task: cola, backbone: tiny-bert}
        grid: {seed: [5]}
        fixed: {source: diagnostics, data_dir: ""}
  s3delta/c1_binary_concrete:
    parameters: {draws: 2000}
"""


DPS_RECIPES = (paths.PARAMETERS / "recipes" / "dps.yaml").read_bytes()


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write ``profiles/tiny.yaml`` in a parameters folder of our own, which keeps the real tasks and backbones."""
    for name in ("tasks.yaml", "backbones.yaml"):
        (tmp_path / name).write_bytes((paths.PARAMETERS / name).read_bytes())
    (tmp_path / "profiles").mkdir()
    monkeypatch.setattr(paths, "PARAMETERS", tmp_path)

    def written(text, name="tiny"):
        (tmp_path / "profiles" / f"{name}.yaml").write_text(text)
        profiles.load.cache_clear()

    yield written
    profiles.load.cache_clear()


values = st.lists(st.integers(), min_size=1, max_size=4, unique=True)


@given(st.dictionaries(st.sampled_from("abcd"), values), st.dictionaries(st.sampled_from("abxy"), st.integers()))
def test_a_grid_is_the_full_product_over_its_common_parameters(grid, common):
    points = profiles.Grid(notebook="n", parameters=common, grid=grid).points()
    assert len(points) == math.prod(len(v) for v in grid.values())
    assert {tuple(point[name] for name in grid) for point in points} == set(product(*grid.values()))
    assert all(point == {**common, **{name: point[name] for name in grid}} for point in points)


def test_a_search_comes_before_the_grid_and_recipes_fill_what_nobody_set():
    """Written in the profile > searched > recipe; the product of both grids, the search's points first."""
    grid = profiles.Grid(
        notebook="runs/finetune",
        parameters={"task": "rte", "epochs": 7},
        recipes=["dps.bert"],
        search={"recipes": "dps", "methods": ["child_tuning_d"], "leave_out": {"p": [0.2, 0.3]}},
        grid={"seed": [0, 1]},
    )
    points = grid.points()
    assert [(p["learning_rate"], p["seed"]) for p in points] == list(product([2e-5, 4e-5, 6e-5, 8e-5, 1e-4], [0, 1]))
    common = {"method": "child_tuning_d", "p": 0.1, "task": "rte", "epochs": 7, "batch_size": 16, "warmup_ratio": 0.1}
    assert all(common.items() <= point.items() for point in points)


def test_recipes_are_looked_up_by_the_values_of_the_grid():
    grid = {
        "notebook": "n",
        "recipes": ["dps.methods", "dps.electra"],
        "grid": {"task": ["rte", "cola"], "method": ["mixout", "r3f"]},
    }
    points = profiles.Grid(**grid).points()
    assert [point["epochs"] for point in points] == [10, 10, 3, 3]
    assert ["p" in point for point in points] == ["strength" not in point for point in points] == [True, False] * 2


@pytest.mark.parametrize(
    "more, told",
    [
        ("recipes: [dps.brt]", r"tiny.yaml: unknown recipe 'dps.brt' \(did you mean 'dps.bert'\?\); known: dps.bert"),
        ("recipes: dps.bert", r"tiny.yaml: sections.*runs\.0\.recipes: .*list"),
        ("search: {recipes: dsp}", "tiny.yaml: unknown recipes 'dsp'; known: dps"),
        (
            "search: {recipes: dps, methods: [mixuot]}",
            r"tiny.yaml: unknown search 'mixuot' \(did you mean 'mixout'\?\)",
        ),
        ("search: {recipes: dps, configurations: -1}", r"tiny.yaml: sections.*search\.configurations: .*got -1"),
        ("search: {recipes: dps, seeds: 3}", r"tiny.yaml: unknown parameter .*search\.seeds"),
    ],
)
def test_a_mistaken_recipe_or_search_is_told_with_its_place(write, more, told, tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "dps.yaml").write_bytes(DPS_RECIPES)
    write(TINY.replace("        grid: {method", f"        {more}\n        grid: {{method"))
    with pytest.raises(InputError, match=told) as error:
        profiles.load("tiny")
    assert "\n" not in str(error.value)


def test_a_recipe_without_a_row_for_a_run_is_told_before_anything_runs(write, tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "dps.yaml").write_bytes(DPS_RECIPES)
    write(TINY.replace("        grid: {method", "        recipes: [dps.electra]\n        grid: {task: [wic], method"))
    with pytest.raises(
        InputError, match="recipe 'dps.electra' has no row for task 'wic'; it has: rte, mrpc, stsb, cola"
    ):
        profiles.run_jobs("tiny", "dps/a_case_study", {})


def test_jobs_come_in_the_profiles_order(write):
    write(TINY)
    jobs = profiles.run_jobs("tiny", "dps/a_case_study", {})
    found = [(job.parameters["task"], job.parameters["method"], job.parameters["seed"]) for job in jobs]
    assert found == [("rte", m, s) for m in ("vanilla", "dps_dense") for s in (0, 1, 2)] + [("cola", "vanilla", 5)]


def test_own_beats_default_override_beats_own_fixed_beats_override(write, tmp_path):
    write(TINY)
    source = {name: {job.parameters["task"]: job.parameters[name] for job in profiles.run_jobs("tiny", "dps/a_case_study", {})}
              for name in ("source", "backbone")}  # fmt: skip
    assert source == {
        "source": {"rte": "hub", "cola": "diagnostics"},
        "backbone": {"rte": "minilm", "cola": "tiny-bert"},
    }
    asked = {"source": "directory", "data_dir": str(tmp_path), "backbone": "tiny-t5"}
    rte, *_, cola = profiles.run_jobs("tiny", "dps/a_case_study", asked)
    assert {key: rte.parameters[key] for key in asked} == asked
    assert {key: cola.parameters[key] for key in asked} == {
        "source": "diagnostics",
        "data_dir": "",
        "backbone": "tiny-t5",
    }


def test_a_section_gets_only_what_it_knows(write):
    write(TINY)
    job = profiles.section_job("tiny", "s3delta/c1_binary_concrete", {"backbone": "tiny-t5"})
    assert job.parameters["draws"] == 2000 and "backbone" not in job.parameters
    assert profiles.section_job("tiny", "dps/a_case_study", {}).parameters["profile"] == "tiny"


def test_a_section_that_is_left_out_has_no_runs_and_cannot_be_opened(write):
    write(TINY)
    assert profiles.run_jobs("tiny", "dps/b_datasets", {}) == []
    with pytest.raises(
        InputError, match="no section 'dps/a_case'.*did you mean 'dps/a_case_study'.*s3delta/c1_binary_concrete"
    ):
        profiles.section_job("tiny", "dps/a_case", {})


def test_an_unknown_profile_lists_the_known_ones(write):
    write(TINY)
    with pytest.raises(InputError, match=r"unknown profile 'tinny' \(did you mean 'tiny'\?\); known: tiny"):
        profiles.load("tinny")


@pytest.mark.parametrize(
    "text, told",
    [
        (TINY + "colour: red\n", "profiles/tiny.yaml: unknown parameter 'colour'; known: description, needs"),
        (
            TINY.replace("        grid: {seed: [5]}", "        grids: {seed: [5]}"),
            r"tiny.yaml: unknown .*runs\.1\.grids",
        ),
        (TINY.replace("minutes: 1", "minutes: soon"), "profiles/tiny.yaml: minutes: .*got 'soon'"),
        (TINY.replace("needs: nothing\n", ""), "profiles/tiny.yaml: needs: a value is needed"),
        (TINY.replace("seed: [5]", "seed: 5"), r"tiny.yaml: sections.*grid\.seed: .*list"),
        ("", "profiles/tiny.yaml: input should be a valid dictionary"),
        ("[1, 2]", "profiles/tiny.yaml: input should be a valid dictionary"),
        ("a: [1\nb: 2", "tiny.yaml, line 2: not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", "tiny.yaml, line 1: not valid YAML"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_place(write, text, told):
    write(text)
    with pytest.raises(InputError, match=f"(?i){told}") as error:
        profiles.load("tiny")
    assert "\n" not in str(error.value)


def test_a_mistyped_run_parameter_is_told_before_anything_runs(write):
    write(TINY.replace("epochs: 1", "epoch: 1"))
    with pytest.raises(InputError, match="unknown parameter 'epoch'.*did you mean 'epochs'"):
        profiles.run_jobs("tiny", "dps/a_case_study", {})


def test_the_command_names_what_differs_from_the_profile(write, tmp_path):
    write(TINY)
    assert profiles.command("tiny", {"source": "hub", "backbone": "minilm"}) == "paperlib reproduce tiny"
    asked = {"source": "directory", "data_dir": "a folder", "backbone": "tiny-t5"}
    expected = "paperlib reproduce tiny --only lets/a1_metrics --source directory --data 'a folder' --backbone tiny-t5"
    assert profiles.command("tiny", asked, "lets/a1_metrics") == expected


@pytest.mark.parametrize("name", profiles.names())
def test_every_job_of_every_profile_is_valid_and_none_comes_twice(name):
    chosen = profiles.load(name)
    for section in chosen.sections:
        assert profiles.section_job(name, section, {}).notebook == section
        jobs = profiles.run_jobs(name, section, {})
        assert len({str(sorted(job.parameters.items(), key=str)) for job in jobs}) == len(jobs)


def test_the_profile_s_own_defaults_override_nothing(write):
    """A scoreboard is opened with all of them, and must find sections and runs that have a backbone of their own."""
    write(TINY)
    usual = profiles.load("tiny").defaults
    assert profiles.run_jobs("tiny", "dps/a_case_study", usual) == profiles.run_jobs("tiny", "dps/a_case_study", {})
    changed = profiles.run_jobs("tiny", "dps/a_case_study", {**usual, "backbone": "tiny-t5"})
    assert {job.parameters["backbone"] for job in changed} == {"tiny-t5"}
