"""What every diagnostic task promises: schema, determinism, disjoint splits, no duplicates, balance."""

import hashlib
import subprocess
import sys

import pandas as pd
import pytest

from paperlib.errors import InputError
from paperlib.tasks import diagnostics
from paperlib.tasks.diagnostics import GRAMMARS, SIZES, SPLITS, generate
from paperlib.tasks.registry import TASKS

SMALL = {"train": 120, "validation": 40, "test": 40}
LISTS = ("entities", "answers")


@pytest.fixture(scope="module", params=list(GRAMMARS))
def generated(request):
    """(task, its frames at the default sizes)."""
    return TASKS[request.param], generate(request.param)


def hashable(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(**{column: frame[column].map(tuple) for column in LISTS if column in frame})


def digest(frames: dict[str, pd.DataFrame]) -> str:
    return hashlib.sha256("".join(frames[split].to_json(orient="records") for split in SPLITS).encode()).hexdigest()


def test_there_is_a_grammar_for_every_task():
    assert set(GRAMMARS) == set(TASKS)


def test_frames_have_the_registrys_columns_and_the_default_sizes(generated):
    task, frames = generated
    assert list(frames) == list(SPLITS)
    for split, frame in frames.items():
        assert list(frame) == task.frame_columns
        assert len(frame) == SIZES[split]
        assert frame.index.tolist() == list(range(len(frame)))
        for column in task.columns:
            assert frame[column].map(lambda text: isinstance(text, str) and text == text.strip() != "").all()


def test_labels_are_indices_or_scores(generated):
    task, frames = generated
    for frame in frames.values():
        if task.kind == "regression":
            assert frame["label"].between(0, 5).all() and pd.api.types.is_float_dtype(frame["label"])
        elif task.kind != "cloze":
            assert pd.api.types.is_integer_dtype(frame["label"])
            assert set(frame["label"]) == set(range(len(task.labels)))


def test_splits_share_no_sentence(generated):
    task, frames = generated
    for column in task.columns:
        if (task.name, column) == ("multirc", "answer"):
            continue  # names and things, not sentences
        others = [other for other in task.columns if other != "answer"]
        for split, frame in frames.items():
            elsewhere = {
                text for name, other in frames.items() if name != split for key in others for text in other[key]
            }
            assert not elsewhere & set(frame[column])


def test_no_row_occurs_twice(generated):
    task, frames = generated
    for frame in frames.values():
        texts = [*task.columns, *(column for column in task.extra if column in ("word", "question"))]
        assert not frame.duplicated(subset=texts).any()


def test_labels_are_balanced(generated):
    task, frames = generated
    if not task.labels:
        return
    for frame in frames.values():
        shares = frame["label"].value_counts(normalize=True)
        assert shares.max() - shares.min() < 0.2
    assert frames["train"]["label"].value_counts(normalize=True).min() > 0.7 / len(task.labels)


def test_sentences_are_sentences(generated):
    """Capital letter first, one closing mark, single spaces, no template left over, short enough to train
    on.
    """
    task, frames = generated
    for column in task.columns:
        if column == "answer":
            continue
        texts = frames["train"][column]
        assert texts.str.match(r"^[A-Z@].*[.?]$").all(), texts[~texts.str.match(r"^[A-Z@].*[.?]$")].iloc[0]
        assert not texts.str.contains(r"[\[\]{}|]|  | [.,?]|\.\.|,,").any(), texts[
            texts.str.contains(r"[\[\]{}|]|  | [.,?]|\.\.|,,")
        ].iloc[0]
        assert texts.str.split().str.len().max() <= (64 if column in ("passage", "paragraph") else 28)


def test_articles_and_repeated_words(generated):
    task, frames = generated
    for column in task.columns:
        texts = frames["train"][column].str.lower()
        assert not texts.str.contains(r"\ba [aeio]|\ban [bcdfgjklmnpqrstvwxyz]").any()
        assert not texts.str.contains(r"\bthe the\b|\ba a\b|\bis is\b|\bwas was\b|\bof of\b|\bto to\b|\bin in\b").any()


def test_the_same_arguments_give_the_same_frames(generated):
    task, frames = generated
    again = generate(task.name)
    for split in SPLITS:
        pd.testing.assert_frame_equal(frames[split], again[split])


def test_frames_do_not_depend_on_the_process():
    """Another hash seed, another process: the same bytes."""
    code = (
        "from paperlib.tasks.diagnostics import generate;"
        "print(*(frame.to_json(orient='records') for name in ('cola', 'record', 'wic') "
        f"for frame in generate(name, 3, {SMALL}).values()))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_another_seed_gives_other_rows():
    for name in GRAMMARS:
        assert digest(generate(name, 0, SMALL)) != digest(generate(name, 1, SMALL))


def test_the_two_rtes_are_different_draws():
    one, other = generate("rte", 0, SMALL)["train"], generate("superglue_rte", 0, SMALL)["train"]
    assert set(one["sentence1"]) != set(other["premise"])


def test_validation_and_test_do_not_depend_on_the_size_of_train():
    small, large = generate("sst2", sizes={"train": 10}), generate("sst2", sizes={"train": 500})
    for split in ("validation", "test"):
        pd.testing.assert_frame_equal(small[split], large[split])


def test_groups_are_numbered_by_text():
    multirc = generate("multirc")["train"]
    assert (multirc.groupby("paragraph_idx")["paragraph"].nunique() == 1).all()
    assert (multirc.groupby("question_idx")["question"].nunique() == 1).all()
    assert multirc.groupby("question_idx")["label"].nunique().eq(2).mean() > 0.95
    record = generate("record")["train"]
    assert record["passage_idx"].is_unique


def test_the_label_of_record_is_the_first_gold_entity():
    for row in generate("record")["train"].itertuples():
        assert row.entities[row.label] in row.answers
        assert all(entity in row.passage for entity in row.entities)
        assert "@placeholder" in row.query


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"task_name": "glue"}, "no task 'glue'"),
        ({"task_name": "cola", "seed": -1}, "seed -1"),
        ({"task_name": "cola", "seed": 0.5}, "seed 0.5"),
        ({"task_name": "cola", "sizes": {"dev": 10}}, "no split 'dev'"),
        ({"task_name": "cola", "sizes": {"train": 0}}, "size 0"),
        ({"task_name": "cola", "sizes": {"train": True}}, "size True"),
        ({"task_name": "cola", "sizes": {"train": "many"}}, "size 'many'"),
    ],
)
def test_mistakes_are_named(arguments, said):
    with pytest.raises(InputError, match=said):
        generate(**arguments)


def test_more_rows_than_a_grammar_can_say(monkeypatch):
    """A grammar of one family is exhausted after it."""
    monkeypatch.setitem(diagnostics.GRAMMARS, "sst2", (lambda draw: [("Good.", "positive"), ("Bad.", "negative")],))
    with pytest.raises(InputError, match="sst2 cannot say 3 distinct rows for test"):
        generate("sst2", sizes={"train": 1, "validation": 1, "test": 3})
