"""The official files, where they are at hand: row counts, and a look at what only real rows have."""

from functools import cache

import numpy as np
import pytest

from paperlib.tasks import get, inventory, load

PRESENT = {  # train / dev / test rows; None: the file is not there
    "cola": (8551, 1043, 1063), "sst2": (67349, 872, 1821), "mrpc": (3668, 408, 1725),
    "stsb": (5749, 1500, 1379),
    "rte": (2490, 277, 3000), "qnli": (None, 5463, 5463),
    "boolq": (None, 3270, 3245), "cb": (250, 56, 250), "copa": (400, 100, 500),
    "multirc": (27243, 4848, 9693),
    "superglue_rte": (2490, 277, 3000), "wic": (5428, 638, 1400),
    "sick": (4500, 500, 4927), "snli": (None, 9842, 9824), "scitail": (None, None, 2126),
}  # fmt: skip


@cache
def frames(name, folder):
    return load(get(name), "directory", folder)


@cache
def counted(name, folder):
    return inventory(get(name), "directory", folder)


@pytest.mark.parametrize("name", PRESENT)
def test_row_counts(real_data, name):
    counts = dict(zip(("train", "validation", "test"), PRESENT[name], strict=True))
    expected = {split: rows for split, rows in counts.items() if rows is not None}
    assert counted(name, real_data) == expected
    assert {split: len(frame) for split, frame in frames(name, real_data).items()} == {
        split: rows for split, rows in expected.items() if get(name).labelled(split)
    }


@pytest.mark.parametrize("name", PRESENT)
def test_present_splits_have_the_published_sizes(real_data, name):
    published = get(name).published
    assert all(rows == published[split] for split, rows in counted(name, real_data).items())


@pytest.mark.parametrize("name", [name for name in PRESENT if name != "stsb"])
def test_every_label_occurs(real_data, name):
    for split, frame in frames(name, real_data).items():
        assert set(frame["label"]) == set(range(len(get(name).labels))), split


def test_scores_fill_their_range(real_data):
    labels = frames("stsb", real_data)["train"]["label"]
    assert (labels.min(), labels.max()) == (0.0, 5.0)


def test_multirc_groups(real_data):
    frame = frames("multirc", real_data)["train"]
    assert frame["paragraph_idx"].nunique() == 456
    assert frame.groupby("question_idx")["paragraph_idx"].nunique().eq(1).all()
    assert np.all(np.diff(frame["question_idx"].unique()) == 1)


@pytest.mark.parametrize("name", PRESENT)
def test_no_text_is_missing(real_data, name):
    for frame in frames(name, real_data).values():
        assert frame[list(get(name).columns)].notna().all().all()
