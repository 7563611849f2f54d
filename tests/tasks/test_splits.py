"""Split protocols: sizes, disjointness, reproducibility, groups kept whole; stratified sub-samples."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlib.errors import InputError
from paperlib.tasks import get
from paperlib.tasks.splits import cut, dps, halves, lets, of_protocol, s3delta

SEEDS = st.integers(0, 2**32)


def pairs(rows, classes=2):
    """Rows told apart by their text; labels cycle."""
    return pd.DataFrame(
        {"sentence1": [str(i) for i in range(rows)], "sentence2": "", "label": np.arange(rows) % classes}
    )


def passages(sizes):
    """MultiRC rows: ``sizes`` answers in each passage, two to a question."""
    owner = np.repeat(np.arange(len(sizes)), sizes)
    place = np.concatenate([np.arange(size) for size in sizes])
    question = np.unique(np.stack([owner, place // 2], axis=1), axis=0, return_inverse=True)[1]
    return pd.DataFrame(
        {
            "paragraph": "",
            "question": "",
            "answer": np.arange(len(owner)).astype(str),
            "paragraph_idx": owner,
            "question_idx": question.ravel(),
            "label": 0,
        }
    )


def ids(frame, column="sentence1"):
    return set(frame[column])


@given(rows=st.integers(2, 60), seed=SEEDS)
def test_small_sets_halve_the_official_validation(rows, seed):
    frames = {"train": pairs(5), "validation": pairs(rows)}
    splits = s3delta(frames, get("rte"), seed)
    assert splits.train is frames["train"]
    assert (len(splits.validation), len(splits.test)) == (rows // 2, rows - rows // 2)
    assert ids(splits.validation) | ids(splits.test) == ids(frames["validation"])
    assert not ids(splits.validation) & ids(splits.test)


@given(rows=st.integers(2001, 2400), seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_large_sets_take_2000_training_rows_for_validation(rows, seed):
    frames = {"train": pairs(rows), "validation": pairs(7)}
    splits = s3delta(frames, get("qnli"), seed)
    assert splits.test is frames["validation"]
    assert (len(splits.validation), len(splits.train)) == (2000, rows - 2000)
    assert not ids(splits.validation) & ids(splits.train)


@given(seed=SEEDS)
def test_splits_are_reproducible_and_depend_on_the_seed(seed):
    frames = {"train": pairs(5), "validation": pairs(40)}
    first, again, other = (s3delta(frames, get("rte"), s).test for s in (seed, seed, seed + 1))
    pd.testing.assert_frame_equal(first, again)
    assert ids(first) != ids(other)  # two of 1.4e11 halves


def test_every_row_is_as_likely_to_be_validation():
    frames = {"train": pairs(5), "validation": pairs(10)}
    counts = sum(
        frames["validation"]["sentence1"].isin(s3delta(frames, get("rte"), s).validation["sentence1"])
        for s in range(400)
    )
    assert np.all(np.abs(counts - 200) < 5 * 10)  # 5 standard deviations of a binomial(400, 1/2)


@given(sizes=st.lists(st.integers(1, 6), min_size=4, max_size=20), seed=SEEDS)
def test_passages_are_never_split(sizes, seed):
    frame = passages(sizes)
    if max(sizes) > len(frame) // 2:
        return
    splits = s3delta({"train": frame, "validation": frame}, get("multirc"), seed)
    assert not ids(splits.validation, "paragraph_idx") & ids(splits.test, "paragraph_idx")
    assert len(splits.validation) + len(splits.test) == len(frame)
    assert len(frame) // 2 - max(sizes) < len(splits.validation) <= len(frame) // 2


def test_a_training_set_too_small_for_2000_rows():
    frames = {"train": pairs(2000), "validation": pairs(5)}
    with pytest.raises(InputError, match="train split of QNLI has 2000 rows, too few to take 2000"):
        s3delta(frames, get("qnli"), 0)
    assert len(s3delta(frames, get("qnli"), 0, held_out=200).validation) == 200


def test_an_absent_split():
    with pytest.raises(InputError, match="S3Delta needs the train split of RTE; this source has validation"):
        s3delta({"validation": pairs(4)}, get("rte"), 0)
    with pytest.raises(InputError, match="DPS needs the validation split of RTE; this source has train"):
        dps({"train": pairs(1)}, get("rte"))


def test_one_validation_row_cannot_be_halved():
    with pytest.raises(InputError, match="validation split of RTE has 1 rows"):
        s3delta({"train": pairs(4), "validation": pairs(1)}, get("rte"), 0)


def test_dps_selects_nothing():
    frames = {"train": pairs(4), "validation": pairs(3), "test": pairs(2)}
    splits = dps(frames, get("rte"))
    assert (splits.train is frames["train"], splits.validation, splits.test is frames["validation"]) == (
        True,
        None,
        True,
    )


def test_a_protocol_by_name_cuts_the_same_training_rows_for_every_seed():
    frames = {"train": pairs(40), "validation": pairs(20)}
    one, two = (of_protocol("s3delta", frames, get("rte"), seed, train_rows=10) for seed in (1, 2))
    pd.testing.assert_frame_equal(one.train, two.train)
    assert len(one.train) == 10 and ids(one.test) != ids(two.test)
    assert of_protocol("dps", frames, get("rte"), 1).train is frames["train"]
    with pytest.raises(InputError, match="unknown protocol 'bert'; known: dps, s3delta, lets"):
        of_protocol("bert", frames, get("rte"), 0)


@pytest.mark.parametrize("rows, held_out", [(25, 2), (40, 4), (10_001, 1000), (12_000, 1000)])
def test_lets_selects_on_a_tenth_of_the_training_rows(rows, held_out):
    frames = {"train": pairs(rows), "validation": pairs(7)}
    splits, other = (lets(frames, get("sst2"), seed) for seed in (0, 1))
    assert splits.test is frames["validation"]
    assert (len(splits.validation), len(splits.train)) == (held_out, rows - held_out)
    assert ids(splits.validation) | ids(splits.train) == ids(frames["train"])
    assert ids(splits.validation) != ids(other.validation)


def test_lets_takes_its_validation_rows_from_the_cut():
    frames = {"train": pairs(400), "validation": pairs(7)}
    cuts = [of_protocol("lets", frames, get("rte"), seed, train_rows=40) for seed in (0, 1)]
    assert {(len(each.train), len(each.validation)) for each in cuts} == {(36, 4)}
    one, two = (ids(each.train) | ids(each.validation) for each in cuts)
    assert one == two, "restarts share their rows"
    assert cuts[0].test is frames["validation"]


@given(rows=st.integers(2, 50), seed=SEEDS)
def test_halves_are_equal_and_disjoint(rows, seed):
    one, two = halves(pairs(rows), seed)
    assert len(one) == len(two) == rows // 2
    assert not ids(one) & ids(two)


def test_a_single_row_cannot_be_halved():
    with pytest.raises(InputError, match="1 training rows cannot be halved"):
        halves(pairs(1), 0)


@given(counts=st.lists(st.integers(1, 40), min_size=2, max_size=4), share=st.floats(0.05, 0.95), seed=SEEDS)
def test_cut_gives_each_class_its_share_to_within_one_row(counts, share, seed):
    frame = pairs(sum(counts))
    frame["label"] = np.repeat(np.arange(len(counts)), counts)
    rows = max(1, int(share * len(frame)))
    sample = cut(frame, rows, seed)
    assert len(sample) == rows == sample["sentence1"].nunique()
    for label, count in enumerate(counts):
        assert abs((sample["label"] == label).sum() - rows * count / len(frame)) < 1 + 1e-9


@given(seed=SEEDS)
def test_cut_draws_scores_evenly_over_their_quantiles(seed):
    scores = np.random.default_rng(1).uniform(0, 5, 200)
    frame = pairs(200).assign(label=scores)
    sample = cut(frame, 20, seed)["label"].to_numpy()
    assert np.array_equal(np.sort(np.searchsorted(np.sort(scores), sample)) // 10, np.arange(20))


@given(seed=SEEDS)
def test_cut_is_reproducible_and_keeps_the_source_order(seed):
    frame = pairs(100)
    first, again, other = (cut(frame, 30, s) for s in (seed, seed, seed + 1))
    pd.testing.assert_frame_equal(first, again)
    assert ids(first) != ids(other)
    assert first["sentence1"].astype(int).is_monotonic_increasing and first.index.tolist() == list(range(30))


def test_every_row_is_as_likely_to_be_cut():
    frame = pairs(10, classes=3)
    counts = sum(frame["sentence1"].isin(cut(frame, 4, seed)["sentence1"]) for seed in range(400))
    assert np.all(np.abs(counts - 160) < 5 * np.sqrt(400 * 0.4 * 0.6))


@pytest.mark.parametrize("rows", [0, 10, 11])
def test_cut_to_all_is_the_frame_itself(rows):
    frame = pairs(10)
    assert cut(frame, rows, 3) is frame


@given(sizes=st.lists(st.integers(2, 6), min_size=3, max_size=12), rows=st.integers(2, 15), seed=SEEDS)
def test_cut_keeps_questions_whole(sizes, rows, seed):
    frame = passages(sizes)
    sample = cut(frame, rows, seed)
    assert len(sample) <= rows or sample is frame
    whole, kept = frame["question_idx"].value_counts(), sample["question_idx"].value_counts()
    assert (kept == whole[kept.index]).all()


def test_cut_refuses_what_it_cannot_do():
    with pytest.raises(InputError, match="cannot cut to -1 rows"):
        cut(pairs(3), -1, 0)
    with pytest.raises(InputError, match="cannot cut to 1 rows: no question has so few answers"):
        cut(passages([4, 4]), 1, 0)
