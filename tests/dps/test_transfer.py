"""One model, the rows of several tasks, scored once."""

import numpy as np
import pandas as pd
import pytest

from paperlib import backbones, tasks
from paperlib.dps import transfer
from paperlib.dps.transfer import Rows
from paperlib.errors import InputError
from paperlib.tasks.encoding import encode
from paperlib.training import Loop, Method

SNLI, RTE, SCITAIL = (tasks.get(name) for name in ("snli", "rte", "scitail"))


@pytest.fixture
def rows():
    """``rows("rte:validation", 5)``: the first rows of a diagnostic."""

    def first(name, count):
        found = transfer.load(name, "diagnostics")
        return Rows(found.task, found.split, found.frame.head(count))

    return first


@pytest.fixture(scope="module")
def backbone():
    return backbones.load("tiny-bert", 3, seed=0)


def frame(labels):
    return pd.DataFrame({"label": labels})


def test_rows_are_called_by_task_and_split(rows):
    found = rows("rte:validation", 5)
    assert found.name == "rte:validation" and len(found.frame) == 5
    with pytest.raises(InputError, match="has no rows 'rte:dev'; of rte it has: train, validation"):
        transfer.load("rte:dev", "diagnostics")
    with pytest.raises(InputError, match="unknown task 'rta'"):
        transfer.load("rta:test", "diagnostics")


def test_the_problem_tests_on_the_rows_of_all_targets_in_order(rows, backbone):
    targets = [rows("rte:validation", 5), rows("scitail:test", 3), rows("snli:test", 4)]
    problem = transfer.problem(rows("snli:train", 6), targets, backbone)
    assert (len(problem.train), problem.validation, len(problem.test)) == (6, None, 12)
    alone = [encode(each.frame, each.task, backbone.tokenizer, SNLI.max_length) for each in targets]
    for field in ("input_ids", "token_type_ids"):
        expected = [row.tolist() for part in alone for row in getattr(part, field)]
        assert [row.tolist() for row in getattr(problem.test, field)] == expected
    assert problem.test.gold.tolist() == [label for part in alone for label in part.gold]


def test_rows_of_every_target_are_as_long_as_the_training_task_allows(rows, backbone):
    target = rows("superglue_rte:validation", 1)
    long = target.frame.assign(premise="word " * 1000)
    problem = transfer.problem(rows("snli:train", 2), [Rows(target.task, "validation", long)], backbone)
    assert target.task.max_length > SNLI.max_length == problem.test.lengths[0]


def test_what_cannot_be_mapped_is_refused_before_training(rows, backbone):
    with pytest.raises(InputError, match="labels of MRPC .* cannot be mapped"):
        transfer.problem(rows("snli:train", 2), [rows("mrpc:validation", 2)], backbone)
    with pytest.raises(InputError, match="RTE has the labels"):
        transfer.problem(rows("rte:train", 2), [rows("snli:test", 2)], backbone)


@pytest.mark.parametrize("name", ["tiny-t5"])
def test_a_backbone_that_writes_text_is_refused(rows, name):
    written = backbones.load(name, 3, seed=0)
    with pytest.raises(InputError, match="'tiny-t5' gives no scores over three labels"):
        transfer.problem(rows("snli:train", 2), [rows("snli:test", 2)], written)


def test_results_by_hand():
    """Six rows of RTE and two of SNLI; probabilities in tenths."""
    rte = Rows(RTE, "validation", frame([0, 1, 0, 1, 1, 1]))
    snli = Rows(SNLI, "test", frame([2, 0]))
    tenths = [[8, 1, 1], [1, 8, 1], [4, 3, 3], [4, 3, 3], [1, 1, 8], [8, 1, 1], [2, 2, 6], [3, 6, 1]]
    found = transfer.results(SNLI, [rte, snli], np.log(tenths))
    assert list(found) == ["rte:validation", "snli:test"]
    assert found["rte:validation"] == {
        "rows": 6,
        "accuracy": {"argmax_then_merge": 4 / 6, "sum_of_probabilities": 4 / 6},
        "correct": {"argmax_then_merge": [1, 1, 1, 0, 1, 0], "sum_of_probabilities": [1, 1, 0, 1, 1, 0]},
        "differing": 2,
        "confusion": {
            "entailment": {"entailment": 2, "neutral": 0, "contradiction": 0},
            "not_entailment": {"entailment": 2, "neutral": 1, "contradiction": 1},
        },
        "majority": 4 / 6,
        "degenerate": False,
    }
    assert found["snli:test"]["correct"] == dict.fromkeys(found["snli:test"]["accuracy"], [1, 0])
    assert found["snli:test"]["differing"] == 0


def test_one_label_for_all_rows_is_degenerate():
    """Neutral here and contradiction there is the same label of SciTail."""
    scores = np.array([[0.0, 5.0, 1.0], [0.0, 1.0, 5.0]])
    found = transfer.results(SNLI, [Rows(SCITAIL, "test", frame([0, 1]))], scores)["scitail:test"]
    assert found["degenerate"] and found["accuracy"]["argmax_then_merge"] == 0.5


def test_scores_of_too_few_rows_are_no_result():
    with pytest.raises(ValueError):
        transfer.results(SNLI, [Rows(RTE, "validation", frame([0, 1, 1]))], np.zeros((2, 3)))


def test_a_trained_model_scores_every_target_as_if_it_were_alone(rows, backbone, make_settings):
    targets = [rows("rte:validation", 5), rows("snli:test", 7)]
    problem = transfer.problem(rows("snli:train", 8), targets, backbone)
    outcome = Loop(problem, Method(), make_settings(epochs=1)).run()
    assert outcome.scores.shape == (12, 3)
    for target, scores in zip(targets, np.split(outcome.scores, [5]), strict=True):
        alone = encode(target.frame, target.task, backbone.tokenizer, SNLI.max_length)
        np.testing.assert_allclose(problem.scores(alone, 4), scores, atol=1e-5)


def test_labels_are_counted_in_the_tasks_own_rows_alone(tmp_path):
    folder = tmp_path / "nli" / "SNLI"
    folder.mkdir(parents=True)
    (folder / "validation.tsv").write_text("premise\thypothesis\tlabel\na\tb\t0\nc\td\t2\ne\tf\t-1\n")
    (folder / "test.tsv").write_text("premise\thypothesis\tlabel\ng\th\t2\n")
    assert transfer.label_counts(SNLI, "directory", str(tmp_path)) == {
        "entailment": 1,
        "neutral": 0,
        "contradiction": 2,
    }
    assert transfer.label_counts(tasks.get("mnli"), "directory", str(tmp_path)) == {}
    assert transfer.label_counts(SNLI, "diagnostics") == {}


def test_rows_without_public_labels_count_for_nothing(tmp_path):
    folder = tmp_path / "glue" / "RTE"
    folder.mkdir(parents=True)
    (folder / "test.tsv").write_text("index\tsentence1\tsentence2\n0\ta\tb\n")
    assert transfer.label_counts(RTE, "directory", str(tmp_path)) == {}


def test_the_real_label_sets_are_those_of_the_registry(real_data):
    for name in ("snli", "sick", "scitail", "rte"):
        found = transfer.label_counts(tasks.get(name), "directory", str(real_data))
        assert list(found) == list(tasks.get(name).labels) and all(found.values())
