"""Vocabulary and morphology: right forms, groups without doubles, exchanges that change the meaning."""

import numpy as np
import pytest

from paperlib.tasks.diagnostics import english, lexicon
from paperlib.tasks.diagnostics.drawing import Draw
from paperlib.tasks.diagnostics.fields import FIELD_OF, FIELDS, far_miss, near_miss


@pytest.mark.parametrize(
    ("form", "word", "expected"),
    [
        (english.plural, "fox", "foxes"),
        (english.plural, "cherry", "cherries"),
        (english.plural, "monkey", "monkeys"),
        (english.plural, "potato", "potatoes"),
        (english.plural, "piano", "pianos"),
        (english.plural, "scarf", "scarves"),
        (english.third, "watch", "watches"),
        (english.third, "cry", "cries"),
        (english.third, "annoy", "annoys"),
        (english.past, "hug", "hugged"),
        (english.past, "carry", "carried"),
        (english.past, "visit", "visited"),
        (english.past, "teach", "taught"),
        (english.participle, "steal", "stolen"),
        (english.participle, "invite", "invited"),
        (english.gerund, "drive", "driving"),
        (english.gerund, "swim", "swimming"),
        (english.gerund, "ski", "skiing"),
    ],
)
def test_forms(form, word, expected):
    assert form(word) == expected


def test_sentences_and_articles():
    assert english.sentence("the  dog slept") == "The dog slept."
    assert english.passage("a dog slept", "it snored") == "A dog slept. It snored."
    assert english.with_articles("an cat saw a owl") == "a cat saw an owl"


def test_no_group_of_the_lexicon_repeats_a_word():
    groups = {name: value for name, value in vars(lexicon).items() if name.isupper() and isinstance(value, tuple)}
    assert groups
    for name, group in groups.items():
        assert len(set(group)) == len(group), name


def test_no_word_has_two_kinds():
    members = [word for kind in lexicon.KINDS.values() for word in kind]
    assert len(set(members)) == len(members)
    assert not set(members) & set(lexicon.KINDS)


def test_every_field_offers_another_word():
    assert all(len(set(field)) > 4 for field in FIELDS)


@pytest.mark.parametrize("seed", range(20))
def test_a_near_miss_exchanges_one_word_and_a_far_miss_all(seed):
    text = "on Monday the tall doctor sold Anna an orange piano, and Peter paid"
    near, far = (miss(Draw(np.random.default_rng(seed)), text) for miss in (near_miss, far_miss))
    plain = [word for word in text.replace(",", "").split() if word not in ("a", "an")]
    for changed, count in ((near, 1), (far, 7)):
        new = [word for word in changed.replace(",", "").split() if word not in ("a", "an")]
        pairs = [(old, word) for old, word in zip(plain, new, strict=True) if old != word]
        assert len(pairs) == count
        assert all(FIELD_OF[old] is FIELD_OF[word] and word not in plain for old, word in pairs)


def test_draws_fill_slots_then_choices():
    draw = Draw(np.random.default_rng(0))
    assert draw.fill("{who} saw [it]{} twice", who="Anna") == "Anna saw it{} twice"
    assert {draw.fill("[a|b|]") for _ in range(50)} == {"a", "b", ""}
    assert sorted(draw.some(range(5), 5)) == list(range(5))
