"""What single rules promise: minimal pairs, labels that follow from a closed form, labels that flip with
the critical change.
"""

import re
from collections import Counter

import numpy as np
import pytest

from paperlib.tasks.diagnostics import (
    GRAMMARS,
    acceptability,
    causes,
    cloze,
    commitment,
    entailment,
    paraphrase,
    scenes,
    senses,
    sentiment,
    similarity,
)
from paperlib.tasks.diagnostics.drawing import Draw

SEEDS = range(40)
WHOLE_FAMILIES = [
    (task, rule)
    for task in ("cola", "sst2", "mnli", "rte", "cb", "snli", "sick", "scitail", "mrpc", "qqp", "qnli", "wic")
    for rule in GRAMMARS[task]
]


def families(rule):
    return [rule(Draw(np.random.default_rng(seed))) for seed in SEEDS]


def words(text: str) -> Counter:
    return Counter(re.findall(r"[a-z']+", text.lower()))


@pytest.mark.parametrize("rule", [rule for _, rule in WHOLE_FAMILIES], ids=lambda rule: rule.__name__)
def test_every_family_balances_its_labels(rule):
    for family in families(rule):
        counts = Counter(row[-1] for row in family)
        assert len(counts) > 1 and len(set(counts.values())) == 1


@pytest.mark.parametrize("rule", acceptability.RULES, ids=lambda rule: rule.__name__)
def test_good_and_bad_sentences_differ_in_the_critical_word_or_in_order(rule):
    """Neighbors in a family are a minimal pair: at most one word is exchanged, or none and the order
    differs.
    """
    for family in families(rule):
        for (good, _), (bad, _) in zip(family[::2], family[1::2], strict=True):
            assert good != bad
            assert (words(good) - words(bad)).total() <= 1


@pytest.mark.parametrize(
    "rule", [rule for rule in sentiment.RULES if rule is not sentiment.plain], ids=lambda rule: rule.__name__
)
def test_praise_is_as_often_negative_as_positive(rule):
    """Beyond `plain`, a polar word never decides: summed over the family, both labels hold the same praise
    and the same blame.
    """
    polar = set(sentiment.PRAISE) | set(sentiment.BLAME)
    for family in families(rule):
        by_label = {
            label: sum((words(text) for text, own in family if own == label), Counter())
            for label in ("positive", "negative")
        }
        assert {w: n for w, n in by_label["positive"].items() if w in polar} == {
            w: n for w, n in by_label["negative"].items() if w in polar
        }


def test_roles_decide():
    """A passive with exchanged roles is not entailed, with the words of the one that is."""
    for entailed, neutral, denied in families(entailment.roles):
        assert words(entailed[1]) == words(neutral[1])
        assert words(entailed[1]) - words(denied[1]) or words(denied[1]) - words(entailed[1])


def test_monotonicity_is_directed():
    """Whenever the entailed and the open row use the same two sentences, they use them in opposite
    directions.
    """
    for entailed, neutral, _ in families(entailment.monotonicity):
        assert entailed[:2] == neutral[1::-1]


def test_two_way_rules_keep_the_entailment():
    for three, two in zip(families(entailment.roles), families(entailment.two_way(entailment.roles)), strict=True):
        assert two[0] == three[0]
        assert two[1][:2] in [row[:2] for row in three[1:]] and two[1][2] == "not_entailment"


def test_square_of_opposition_agrees_with_models():
    """Each listed pair is checked against all ways four people can act (with existential import: there are
    people).
    """
    holds = {
        "all": lambda n: n == 4,
        "most": lambda n: n > 2,
        "some": lambda n: n > 0,
        "not all": lambda n: n < 4,
        "no": lambda n: n == 0,
    }

    def relation(premise: str, hypothesis: str) -> set[bool]:
        return {holds[hypothesis](n) for n in range(5) if holds[premise](n)}

    assert all(relation(*pair) == {True} for pair in entailment.FOLLOWS)
    assert all(relation(*pair) == {True, False} for pair in entailment.OPEN)
    assert all(relation(*pair) == {False} for pair in entailment.EXCLUDED)


def test_commitment_hypotheses_are_clauses_of_the_premise_or_their_denial():
    for rule in commitment.RULES:
        for family in families(rule):
            for premise, hypothesis, _ in family:
                plain = hypothesis.rstrip(".").replace(" not ", " ").lower()
                assert plain in premise.replace(" not ", " ").lower()


def test_rearranged_paraphrases_have_the_words_of_the_original():
    """Exchanged adjectives: the non-paraphrase that keeps all words is a rearrangement, the paraphrase
    always keeps them.
    """
    for same, other in families(paraphrase.whose_trait):
        assert words(same[0]) == words(same[1])
        assert other[1] != same[1]


def test_identical_clauses_score_five_and_prices_add_up():
    for seed in SEEDS:
        draw = Draw(np.random.default_rng(seed))
        clause = similarity.clause(draw)
        assert similarity.edited(draw, clause, 0) == (clause, 5.0)
        for slot, price, edit in similarity.EDITS:
            assert edit(draw, clause), slot
            assert 0 < price <= 5


def test_more_edits_never_raise_the_score():
    for seed in SEEDS:
        clause = similarity.clause(Draw(np.random.default_rng(seed)))
        scores = [
            similarity.edited(Draw(np.random.default_rng(seed)), clause, count)[1]
            for count in range(len(similarity.EDITS))
        ]
        assert scores == sorted(scores, reverse=True)


def test_a_repeated_sentence_scores_five():
    for rule in similarity.RULES:
        for ((one, other, score),) in families(rule):
            assert 0 <= score <= 5
            if one == other:
                assert score == 5


def test_the_question_decides_between_cause_and_effect():
    """The same premise and choices: asked for the cause and for the effect, the other choice is right."""
    for first, second in families(causes.cause_or_effect):
        assert {first[3], second[3]} == {"cause", "effect"} and first[0] == second[0]
        right = [row[int(row[4][-1])] for row in (first, second)]
        assert set(first[1:3]) == set(second[1:3]) == set(right)


def test_both_contexts_hold_the_word_and_senses_share_no_context():
    for _word, one, other in senses.SENSES:
        assert len(one) >= 3 and len(other) >= 3 and not set(one) & set(other)
    for family in families(senses.same_or_other_sense):
        for one, other, word, _ in family:
            assert word in words(one) and word in words(other)


def test_captions_that_entail_mention_more_than_those_that_leave_open():
    """The open row drops the asked attribute from the caption of the entailed row and asks for the same
    one.
    """
    for entailed, open_, denied in families(scenes.caption):
        assert words(open_[0]).total() < words(entailed[0]).total()
        assert entailed[0] == denied[0] and entailed[1] != denied[1]


def test_cloze_answers_are_entities_and_queries_ask_for_one():
    for rule in cloze.RULES:
        for ((told, query, entities, answers, label),) in families(rule):
            assert query.count("@placeholder") == 1
            assert answers == [entities[label]]
            assert sorted(entities, key=told.index) == entities
