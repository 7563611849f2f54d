"""The dataset hub: its schemas (made-up rows) and, for real, what a user sees where it cannot be reached."""

import time

import datasets
import pytest
from huggingface_hub import constants

from paperlib import hub
from paperlib.errors import InputError
from paperlib.tasks import get, load


def dataset(rows, label=None):
    made = datasets.Dataset.from_list(rows)
    return made.cast_column("label", datasets.ClassLabel(names=label)) if label else made


@pytest.fixture
def serve(monkeypatch):
    """Makes load_dataset answer with the given splits; returns the calls."""

    def _serve(splits):
        calls = []
        monkeypatch.setattr(hub, "reachable", lambda endpoint: True)
        monkeypatch.setattr(
            datasets,
            "load_dataset",
            lambda path, name, revision: calls.append((path, name, revision)) or datasets.DatasetDict(splits),
        )
        return calls

    return _serve


def rows(frame):
    return frame.to_numpy().tolist()


def test_glue_leaves_the_unlabelled_test_split_out(serve):
    names = ["entailment", "not_entailment"]
    row = {"sentence1": "a", "sentence2": "b", "idx": 0}
    calls = serve({"train": dataset([row | {"label": 1}], names), "test": dataset([row | {"label": -1}])})
    frames = load(get("rte"), "hub")
    assert calls == [("nyu-mll/glue", "rte", None)]
    assert list(frames) == ["train"]
    assert list(frames["train"].columns) == get("rte").frame_columns
    assert rows(frames["train"]) == [["a", "b", 1]]


def test_mnli_validation_is_matched(serve):
    splits = {
        split: dataset([{"premise": split, "hypothesis": "h", "label": 2}])
        for split in ("train", "validation_matched", "validation_mismatched", "test_matched")
    }
    serve(splits)
    frames = load(get("mnli"), "hub")
    assert {split: frame["premise"][0] for split, frame in frames.items()} == {
        "train": "train",
        "validation": "validation_matched",
        "validation_mismatched": "validation_mismatched",
    }


def test_stsb_scores_are_floats(serve):
    serve({"train": dataset([{"sentence1": "a", "sentence2": "b", "label": 3.8, "idx": 0}])})
    frame = load(get("stsb"), "hub")["train"]
    assert rows(frame) == [["a", "b", 3.8]] and frame["label"].dtype == "float64"


def test_snli_drops_rows_without_an_agreed_label(serve):
    serve({"test": dataset([{"premise": "a", "hypothesis": "b", "label": label} for label in (0, -1, 2)])})
    assert load(get("snli"), "hub")["test"]["label"].tolist() == [0, 2]


def test_scitail_maps_strings(serve):
    serve(
        {
            "validation": dataset(
                [{"sentence1": "a", "sentence2": "b", "gold_label": label} for label in ("neutral", "entailment")]
            )
        }
    )
    assert rows(load(get("scitail"), "hub")["validation"]) == [["a", "b", 1], ["a", "b", 0]]
    serve({"validation": dataset([{"sentence1": "a", "sentence2": "b", "gold_label": "?"}])})
    with pytest.raises(InputError, match="allenai/scitail snli_format: 'gold_label' is '[?]', expected one of entails"):
        load(get("scitail"), "hub")


def test_multirc_numbers_its_groups(serve):
    row = {"paragraph": "p", "question": "q", "answer": "a", "label": 1}
    index = [(7, 70, 0), (7, 70, 1), (7, 71, 0), (8, 70, 0)]
    serve({"train": dataset([row | {"idx": {"paragraph": p, "question": q, "answer": a}} for p, q, a in index])})
    frame = load(get("multirc"), "hub")["train"]
    assert list(frame.columns) == get("multirc").frame_columns
    assert frame["paragraph_idx"].tolist() == [0, 0, 0, 1]
    assert frame["question_idx"].tolist() == [0, 0, 1, 2]


def test_record_labels_the_first_gold_entity(serve):
    row = {
        "passage": "p",
        "query": "@placeholder",
        "entities": ["Ada", "Bob"],
        "idx": {"passage": 4, "query": 9},
    }
    serve({"train": dataset([row | {"answers": ["Bob"]}, row | {"answers": ["Eve"]}])})
    assert rows(load(get("record"), "hub")["train"]) == [
        ["p", "@placeholder", ["Ada", "Bob"], ["Bob"], 0, 1],
        ["p", "@placeholder", ["Ada", "Bob"], ["Eve"], 0, -1],
    ]


def test_sick_comes_from_the_parquet_branch(serve):
    calls = serve({"train": dataset([{"sentence_A": "a", "sentence_B": "b", "label": 0}])})
    assert rows(load(get("sick"), "hub")["train"]) == [["a", "b", 0]]
    assert calls == [("RobZamp/sick", None, "refs/convert/parquet")]


def test_another_schema_is_refused(serve):
    serve({"train": dataset([{"text": "a", "label": 0}])})
    with pytest.raises(InputError, match="nyu-mll/glue cola has no column 'sentence'; found text, label"):
        load(get("cola"), "hub")


def test_no_labelled_split(serve):
    serve({"test": dataset([{"sentence": "a", "label": -1}])})
    with pytest.raises(InputError, match="nyu-mll/glue cola has no labelled split; found test"):
        load(get("cola"), "hub")


def test_an_unreachable_hub_is_one_line_within_seconds(monkeypatch, tmp_path):
    """For real: an endpoint that refuses connections, and an empty cache."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    before, start = constants.HF_HUB_OFFLINE, time.monotonic()
    with pytest.raises(
        InputError,
        match="nyu-mll/glue rte cannot be loaded .*--source directory --data DIR or --source diagnostics",
    ) as error:
        load(get("rte"), "hub")
    assert "\n" not in str(error.value)
    assert time.monotonic() - start < 2 * hub.SECONDS_TO_REACH
    assert before == constants.HF_HUB_OFFLINE
