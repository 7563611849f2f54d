"""Pre-experiments: like is compared with like, and a lead within chance is no verdict."""

import pandas as pd
import pytest

from paperlib import stats
from paperlib.records import Record
from paperlib.s3delta import trials

USUAL = {"learning_rate": 3e-4, "tau": 1.0}


def run(task="boolq", seed=0, score=0.5, **parameters):
    """A record of a search whose last validation is not its best."""
    validation = [{"accuracy": score}, {"accuracy": score - 0.1}]
    given = {"task": task, "seed": seed, **USUAL, **parameters}
    return Record(notebook="runs/search", parameters=given, results={"validation": validation})


def of(scores: dict[float, list[float]], task="boolq"):
    """Runs of one task with these scores by tau, a seed each."""
    return [run(task, seed, score, tau=tau) for tau, each in scores.items() for seed, score in enumerate(each)]


def test_a_run_scores_by_its_best_validation_in_the_task_s_main_metric():
    record = Record(
        notebook="runs/search",
        parameters={"task": "cb", "seed": 0},
        results={"validation": [{"accuracy": 0.5, "macro_f1": 0.9}, {"accuracy": 0.7, "macro_f1": 0.1}]},
    )
    assert trials.frame([record]).score.tolist() == [0.7]


def test_only_runs_that_differ_in_nothing_else_are_compared():
    runs = trials.frame([*of({0.1: [0.5], 1.0: [0.6]}), run(tau=0.1, learning_rate=3e-5, seed=0, score=0.9)])
    table = trials.varied(runs, "tau", [0.1, 1.0], USUAL)
    assert table.loc[("boolq", 0)].to_dict() == {0.1: 0.5, 1.0: 0.6} and len(table) == 1


def test_a_seed_that_lacks_a_value_compares_nothing():
    runs = trials.frame(of({0.1: [0.5, 0.6], 1.0: [0.6]}))
    assert list(trials.varied(runs, "tau", [0.1, 1.0], USUAL).index) == [("boolq", 0)]
    assert trials.varied(runs, "tau", [0.1, 0.3, 1.0], USUAL).empty


def test_a_run_that_two_grids_name_counts_once():
    assert len(trials.frame([run(), run()])) == 1


def test_no_records_no_table():
    runs = trials.frame([])
    assert runs.empty and trials.varied(runs, "tau", [0.1, 1.0], USUAL).empty


def test_runs_that_differ_in_something_unnamed_are_refused():
    runs = trials.frame([run(epochs=1), run(epochs=2)])
    with pytest.raises(ValueError, match="duplicate"):
        trials.varied(runs, "tau", [1.0], USUAL)


def chosen(*records, value=1.0):
    return trials.choose(trials.varied(trials.frame(records), "tau", [0.1, 1.0], USUAL), value)


def verdict(choice):
    return choice.holds(stats.t_interval(choice.margins).low)


def test_the_highest_mean_is_best_and_tasks_count_alike():
    """Three seeds of one task do not outvote one of the other."""
    found = chosen(*of({0.1: [0.5] * 3, 1.0: [0.6] * 3}), *of({0.1: [0.9], 1.0: [0.5]}, task="sst2"))
    assert found.best == 0.1


def test_the_chosen_value_holds_where_it_is_best_or_ties():
    assert verdict(chosen(*of({0.1: [0.5], 1.0: [0.6]}))) is True
    assert verdict(chosen(*of({0.1: [0.6], 1.0: [0.6]}))) is True


def test_the_best_is_held_against_the_chosen_or_the_next():
    runs = trials.frame(of({0.1: [0.5, 0.4], 0.3: [0.6, 0.6], 1.0: [0.9, 0.7]}))
    table = trials.varied(runs, "tau", [0.1, 0.3, 1.0], USUAL)
    assert (trials.choose(table, 1.0).rival, trials.choose(table, 1.0).margins) == (0.3, pytest.approx([0.3, 0.1]))
    assert (trials.choose(table, 0.1).rival, trials.choose(table, 0.1).margins) == (0.1, pytest.approx([0.4, 0.3]))


def test_another_refutes_it_only_beyond_chance():
    one = chosen(*of({0.1: [0.7], 1.0: [0.6]}))
    assert one.best == 0.1 and verdict(one) is None and len(one.margins) == 1
    assert verdict(chosen(*of({0.1: [0.7, 0.6, 0.8], 1.0: [0.6, 0.7, 0.7]}))) is None
    clear = chosen(*of({0.1: [0.70, 0.81, 0.90], 1.0: [0.50, 0.60, 0.70]}))
    assert verdict(clear) is False and clear.margins == pytest.approx([0.2, 0.21, 0.2])


def test_nothing_is_chosen_from_nothing():
    with pytest.raises(ValueError):
        trials.choose(pd.DataFrame(columns=[0.1, 1.0]), 1.0)


def search(p, chosen):
    return {"probabilities": p, "structure": {"chosen": chosen}}


def test_two_searches_part_by_the_largest_difference_at_any_validation():
    found = trials.apart(search([[0.1, 0.9], [0.2, 0.7]], ["a", "b"]), search([[0.1, 0.5], [0.3, 0.7]], ["b", "c"]))
    assert list(found.values()) == [pytest.approx(0.4), 0.9, 1, 3]


def test_searches_of_different_lengths_are_not_compared():
    with pytest.raises(ValueError, match="different numbers"):
        trials.apart(search([[0.1, 0.9]], []), search([[0.1, 0.9]] * 2, []))
