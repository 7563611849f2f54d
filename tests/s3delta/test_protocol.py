"""The audit of the split protocol: what it says of good splits, and that it notices bad ones."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlib.errors import InputError
from paperlib.s3delta import protocol
from paperlib.tasks import TASKS, get, load, splits

SEEDS = range(3)


def pairs(rows, start=0):
    texts = [f"text {number}" for number in range(start, start + rows)]
    return pd.DataFrame({"sentence1": texts, "sentence2": texts, "label": np.arange(rows) % 2})


def small(train=11, official=9):
    return {"train": pairs(train), "validation": pairs(official, 100)}


def multirc(passages):
    """Two rows of one question in each passage."""
    owner = np.repeat(np.arange(passages), 2)
    said = [f"paragraph {number}" for number in owner]
    frame = {"paragraph": said, "question": "?", "answer": "yes", "paragraph_idx": owner, "question_idx": owner}
    return pd.DataFrame({**frame, "label": np.arange(2 * passages) % 2})


def test_the_paper_has_fourteen_tasks_seven_of_each_suite():
    suites = [task.suite for task in protocol.tasks()]
    assert suites.count("glue") == suites.count("superglue") == 7
    assert {task.name for task in protocol.tasks() if task.large} == {"qqp", "qnli", "record", "sst2", "mnli"}


@pytest.mark.parametrize(
    "rows, asked, taken", [(67_349, 2000, 2000), (20_000, 2000, 2000), (1000, 2000, 100), (9, 5, 0)]
)
def test_a_set_too_small_gives_a_tenth(rows, asked, taken):
    assert protocol.held_out(rows, asked) == taken


def test_none_of_the_paper_s_large_sets_is_too_small():
    assert all(protocol.held_out(t.published["train"], 2000) == 2000 for t in protocol.tasks() if t.large)


@pytest.mark.parametrize("name", [task.name for task in protocol.tasks()])
def test_the_diagnostics_follow_the_protocol(name):
    found = protocol.audit(get(name), load(get(name), "diagnostics"), SEEDS, 2000)
    assert found.apart and found.complete and found.as_printed and found.equal_halves and found.distinct
    assert found.whole in (True, None) and (found.whole is None) == (get(name).group is None)
    assert sum(found.sizes[part] for part in ("train", "validation", "test")) == sum(found.official.values())


def test_sizes_of_a_small_set():
    found = protocol.audit(get("mrpc"), small(), SEEDS, 2000)
    assert found.sizes == {"train": 11, "validation": 4, "test": 5, "delta": 5, "alpha": 5}
    assert found.by_chance == 4 / 9 and found.across_halves is None


@given(official=st.integers(40, 60))
@settings(max_examples=10, deadline=None)
def test_two_seeds_have_in_common_what_chance_gives(official):
    found = protocol.audit(get("mrpc"), small(official=official), range(20), 2000)
    assert found.common == pytest.approx(found.by_chance, abs=0.06)


def test_planned_sizes_are_those_executed():
    task, frames = get("mrpc"), small(3668, 408)
    assert protocol.planned(task, 2000) == protocol.audit(task, frames, SEEDS, 2000).sizes


def test_planned_sizes_of_a_large_set():
    assert protocol.planned(get("sst2"), 2000) == {
        **{"train": 65_349, "delta": 32_674, "alpha": 32_674},
        **{"validation": 2000, "test": 872},
    }


def test_passages_are_followed_into_the_halves():
    frames = {"train": multirc(50), "validation": multirc(20)}
    found = protocol.audit(get("multirc"), frames, SEEDS, 2000)
    assert found.whole and 0.2 < found.across_halves < 0.8, "two rows of a passage part with probability one half"


# --- bad splits


def broken(monkeypatch, change):
    right = splits.s3delta
    monkeypatch.setattr(splits, "s3delta", lambda *given: change(right(*given)))


def test_a_row_in_two_parts_is_noticed(monkeypatch):
    broken(monkeypatch, lambda s: splits.Splits(s.train, s.validation, pd.concat([s.test, s.validation.head(1)])))
    found = protocol.audit(get("mrpc"), small(), SEEDS, 2000)
    assert not found.apart and not found.complete and not found.as_printed


def test_a_lost_row_is_noticed(monkeypatch):
    broken(monkeypatch, lambda s: splits.Splits(s.train.iloc[1:], s.validation, s.test))
    found = protocol.audit(get("mrpc"), small(), SEEDS, 2000)
    assert found.apart and not found.complete and not found.as_printed


def test_the_same_split_for_every_seed_is_noticed(monkeypatch):
    right = splits.s3delta
    monkeypatch.setattr(splits, "s3delta", lambda frames, task, seed, held_out: right(frames, task, 0, held_out))
    found = protocol.audit(get("mrpc"), small(), SEEDS, 2000)
    assert not found.distinct and found.common == 1.0


def test_a_divided_passage_is_noticed(monkeypatch):
    def swap(s):
        a, b = pd.concat([s.validation.iloc[1:], s.test.head(1)]), pd.concat([s.test.iloc[1:], s.validation.head(1)])
        return splits.Splits(s.train, a, b)

    broken(monkeypatch, swap)
    frames = {"train": multirc(8), "validation": multirc(8)}
    assert protocol.audit(get("multirc"), frames, SEEDS, 2000).whole is False


def test_unequal_halves_are_noticed(monkeypatch):
    right = splits.halves
    monkeypatch.setattr(splits, "halves", lambda frame, seed: (right(frame, seed)[0].iloc[1:], right(frame, seed)[1]))
    assert not protocol.audit(get("mrpc"), small(), SEEDS, 2000).equal_halves


def test_an_absent_split_is_an_error():
    with pytest.raises(InputError, match="needs the train split of QNLI"):
        protocol.execute(get("qnli"), {"validation": pairs(5)}, 0, 2000)


# --- sources


def test_what_a_source_lacks_is_told(tmp_path):
    folder = tmp_path / "superglue" / "COPA"
    folder.mkdir(parents=True)
    row = '{"premise": "p", "choice1": "a", "choice2": "b", "question": "cause", "label": 0, "idx": 0}\n'
    (folder / "val.jsonl").write_text(row)
    frames, absent = protocol.load("directory", str(tmp_path))
    assert list(frames) == ["copa"] and absent["copa"] == "no train split"
    assert "no folder" in absent["cola"] and len(absent) == 14


# --- familiar rows, lengths, optimism


def test_rows_within_training_texts_are_familiar():
    """A phrase of a training sentence is; a sentence that merely holds one is not."""
    train = pd.DataFrame({"sentence": ["a fine film indeed"] * 40 + ["dull"] * 40, "label": 0})
    official = pd.DataFrame({"sentence": ["fine film", "a fine film indeed, once"], "label": 0})
    shares = protocol.familiar(get("sst2"), {"train": train, "validation": official}, 0, 5)
    assert shares == {"validation": 1.0, "test": 0.5}


def test_lengths_are_those_before_cutting():
    from paperlib import backbones

    reader = backbones.load("tiny-bert", 2, seed=0)
    long = pairs(4).assign(sentence1="word " * 300)
    found = protocol.lengths(get("mrpc"), {"train": long, "validation": pairs(2)}, reader, 500)
    assert len(found) == 6 and found[:4].min() > 300 > get("mrpc").max_length > found[4:].max()


@pytest.mark.parametrize("rows, accuracy, evaluations", [(28, 0.8, 48), (138, 0.7, 5), (2000, 0.9, 30)])
def test_optimism_is_that_of_drawn_accuracies(rows, accuracy, evaluations):
    drawn = np.random.default_rng(0).binomial(rows, accuracy, (40_000, evaluations)).max(1) / rows
    error = drawn.std() / 200
    assert protocol.optimism(rows, accuracy, evaluations) == pytest.approx(drawn.mean() - accuracy, abs=5 * error)


def test_one_evaluation_is_not_optimistic():
    assert protocol.optimism(50, 0.8, 1) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("rows, evaluations", [(0, 5), (5, 0)])
def test_nothing_to_evaluate_is_an_error(rows, evaluations):
    with pytest.raises(InputError, match="select nothing"):
        protocol.optimism(rows, 0.8, evaluations)


def test_every_task_of_the_paper_is_registered():
    assert {task.name for task in protocol.tasks()} <= set(TASKS)
