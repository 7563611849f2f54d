"""Philox 4x32-10 against the vectors published with it, and the stream of words made of it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paperlib.kernels.philox import philox, words

# Counter, key and result, as the authors' Random123 library gives them for philox4x32 with 10 rounds.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def numbers(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_published_vectors(counter, key, result):
    found = philox(tuple(torch.tensor([word]) for word in numbers(counter)), tuple(numbers(key)))
    assert [int(word) for word in found] == numbers(result)


def test_the_first_words_of_a_stream_are_those_of_its_first_counter():
    assert words(0, 0, 0, 4).tolist() == numbers(KNOWN[0][2])


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**34 - 50), st.integers(0, 40))
def test_word_n_depends_on_nothing_but_n(seed, step, first, count):
    whole = words(seed, step, first, count + 9)
    assert torch.equal(words(seed, step, first + 5, count), whole[5 : 5 + count])
    counter = (torch.tensor([(first + 2) // 4]), torch.tensor([step]), torch.tensor([0]), torch.tensor([0]))
    assert whole[2] == philox(counter, (seed % 2**32, seed >> 32))[(first + 2) % 4]


def test_other_seeds_and_steps_give_other_words():
    streams = [words(seed, step, 0, 64) for seed in (1, 2, 1 + 2**32) for step in (0, 1)]
    assert len({tuple(each.tolist()) for each in streams}) == 6


def test_words_are_uniform():
    """Each of 16 equal parts holds its share of 2^16 words within five standard deviations."""
    share = torch.bincount(words(7, 3, 0, 2**16) >> 28, minlength=16)
    assert (share - 4096).abs().max() < 5 * (4096 * 15 / 16) ** 0.5
