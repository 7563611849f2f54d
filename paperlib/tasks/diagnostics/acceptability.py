"""Acceptability (CoLA): minimal pairs after BLiMP (Warstadt et al. 2020).

Every rule writes as many good as bad sentences. Either both are the same words in another order, or the
critical word is good in as many sentences as it is bad, so that counting words does not help.
"""

from paperlib.tasks.diagnostics.drawing import Draw
from paperlib.tasks.diagnostics.english import gerund, participle, past, plural, question, sentence, third
from paperlib.tasks.diagnostics.lexicon import (
    HANDLING,
    INTRANSITIVE,
    KINDS,
    MEN,
    NAMES,
    OBJECT_KINDS,
    PEOPLE,
    REVERSIBLE,
    TRAITS,
    WOMEN,
    words,
)

GOOD, BAD = "acceptable", "unacceptable"
ALONE = words("sleep arrive vanish sneeze yawn fall die cough stumble blush smile exist")  # never with an object
NEEDING = words("carry find grab bring lift fetch repair destroy hold make discover take")  # never without one
STRONG = words("break choose draw hide steal take throw wear give drive eat")  # past tense and participle differ
THINGS = tuple(thing for kind in OBJECT_KINDS for thing in KINDS[kind])


def pair(good: str, bad: str, close=sentence) -> list[tuple]:
    return [(close(good), GOOD), (close(bad), BAD)]


def inflected(draw: Draw, noun: str) -> tuple[str, bool]:
    """The noun in a random number, and whether it is plural."""
    many = draw.maybe()
    return (plural(noun) if many else noun), many


def agreement_across_a_phrase(draw: Draw) -> list[tuple]:
    """The verb agrees with the head, not with the nearer noun of the opposite number (Linzen et al. 2016;
    BLiMP: distractor agreement).
    """
    head, other = draw.some(PEOPLE, 2)
    many = draw.maybe()
    subject = (
        f"the {plural(head)} [behind|near|next to|beside] the {other}"
        if many
        else f"the {head} [behind|near|next to|beside] the {plural(other)}"
    )
    verb, rest = draw.one((("is", "are"), ("was", "were"), ("has", "have"))), draw.one(TRAITS)
    subject = draw.fill(subject)
    rest = draw.fill("[been|become] " if verb[0] == "has" else "") + rest
    return pair(f"{subject} {verb[many]} {rest}", f"{subject} {verb[not many]} {rest}")


def agreement_across_a_clause(draw: Draw) -> list[tuple]:
    """The same across an object relative clause, whose own verb agrees with its own subject (Marvin and
    Linzen 2018).
    """
    (head, many), (other, others) = (inflected(draw, noun) for noun in draw.some(PEOPLE, 2))
    inner, outer = draw.one(REVERSIBLE), draw.one(INTRANSITIVE)
    subject = f"the {head} that the {other} {inner if others else third(inner)}"
    forms = (third(outer), outer)
    adverb = draw.fill("[often|rarely|never|always]")
    return pair(f"{subject} {adverb} {forms[many]}", f"{subject} {adverb} {forms[not many]}")


def determiner_noun(draw: Draw) -> list[tuple]:
    """This and that take singulars, these and those plurals, also across an adjective (BLiMP:
    determiner-noun agreement with adjective).
    """
    who, (thing, many) = draw.one(NAMES), inflected(draw, draw.one(THINGS))
    determiner = draw.one((("this", "these"), ("that", "those")))
    middle = draw.fill("[old|new|small|heavy|cheap|dirty|strange|little]")
    start = f"{who} {draw.fill('[will|must|might|cannot]')} {draw.one(HANDLING)}"
    return pair(f"{start} {determiner[many]} {middle} {thing}", f"{start} {determiner[not many]} {middle} {thing}")


def reflexive_domain(draw: Draw) -> list[tuple]:
    """A reflexive takes its antecedent from its own clause, not from the clause above (Principle A; BLiMP:
    principle A domain).
    """
    woman, man, verb = draw.one(WOMEN), draw.one(MEN), past(draw.one(REVERSIBLE))
    above, below, good, bad = draw.one(((woman, man, "himself", "herself"), (man, woman, "herself", "himself")))
    start = f"{above} {draw.fill('[thinks|said|believes|knows|heard]')} that {below} {verb}"
    return pair(f"{start} {good}", f"{start} {bad}")


def argument_structure(draw: Draw) -> list[tuple]:
    """Intransitive verbs take no object, transitive verbs need one (BLiMP: transitive, intransitive)."""
    who, thing = draw.one(PEOPLE), draw.one(THINGS)
    alone = past(draw.one(ALONE))
    handling = past(draw.one(NEEDING))
    start = f"the {draw.one(TRAITS)} {who}"
    return pair(f"{start} {alone}", f"{start} {handling}") + pair(
        f"{start} {handling} the {thing}", f"{start} {alone} the {thing}"
    )


def polarity_scope(draw: Draw) -> list[tuple]:
    """The word "ever" needs a negation that c-commands it; one inside a relative clause does not (BLiMP: NPI
    scope).
    """
    one, other = draw.some(PEOPLE, 2)
    verb, last = past(draw.one(REVERSIBLE)), participle(draw.one(INTRANSITIVE))
    frame = f"{{}} {one} that {{}} {other} {verb} {draw.fill('[has|had]')} ever {last}"
    return pair(frame.format("no", "the"), frame.format("the", "no"))


def verb_form(draw: Draw) -> list[tuple]:
    """An irregular participle needs an auxiliary, and an irregular past tense excludes it (BLiMP:
    irregular past participle).
    """
    who, thing = draw.one(PEOPLE), draw.one(THINGS)
    verb = draw.one(STRONG)
    start, rest = f"the {draw.one(TRAITS)} {who}", f"the {thing}"
    return pair(f"{start} {past(verb)} {rest}", f"{start} {participle(verb)} {rest}") + pair(
        f"{start} has {participle(verb)} {rest}", f"{start} has {past(verb)} {rest}"
    )


def auxiliary_form(draw: Draw) -> list[tuple]:
    """After do and will the verb is bare; without them a singular subject inflects it (affix hopping,
    Chomsky 1957).
    """
    who, verb = f"the {draw.one(TRAITS)} {draw.one(PEOPLE)}", draw.one(INTRANSITIVE)
    auxiliary = draw.fill("[does not|will|can|did not|must]")
    where = draw.fill("[in the garden|at school|at home|in the park|at night|every day]")
    bare, inflected_ = f"{verb} {where}", f"{third(verb)} {where}"
    return pair(f"{who} {inflected_}", f"{who} {bare}") + pair(
        f"{who} {auxiliary} {bare}", f"{who} {auxiliary} {inflected_}"
    )


def phrase_order(draw: Draw) -> list[tuple]:
    """Adjectives stand between article and noun, articles before both."""
    (one, other), trait, verb = draw.some(PEOPLE, 2), draw.one(TRAITS), past(draw.one(REVERSIBLE))
    wrong = draw.one((f"the {other} {trait}", f"{trait} the {other}"))
    halves = draw.maybe()
    good, bad = (
        (f"the {one} {verb} {phrase}" if halves else f"{phrase} {verb} the {one}")
        for phrase in (f"the {trait} {other}", wrong)
    )
    return pair(good, bad)


def gap_or_no_gap(draw: Draw) -> list[tuple]:
    """A wh-word needs a gap in its clause, "that" forbids one (filler-gap dependency; BLiMP: wh vs. that)."""
    above, below = draw.some(NAMES, 2)
    verb = past(draw.one(NEEDING))
    start, rest = f"{above} {draw.fill('[knows|forgot|discovered|remembers]')}", f"{below} {verb}"
    thing = f"the {draw.one(THINGS)}"
    return pair(f"{start} what {rest}", f"{start} that {rest}") + pair(
        f"{start} that {rest} {thing}", f"{start} what {rest} {thing}"
    )


def adjunct_island(draw: Draw) -> list[tuple]:
    """Nothing moves out of an adjunct clause (Ross 1967; BLiMP: adjunct island)."""
    one, other = draw.some(NAMES, 2)
    auxiliary, verb = draw.fill("[should|did|will|could|might]"), draw.one(REVERSIBLE)
    inner = gerund(draw.one(REVERSIBLE))
    link = draw.fill("[before|after|while|without]")
    return pair(
        f"who {auxiliary} {one} {verb} {link} {inner} {other}",
        f"who {auxiliary} {one} {verb} {other} {link} {inner}",
        question,
    )


def left_branch(draw: Draw) -> list[tuple]:
    """A determiner does not move without its noun (Ross 1967; BLiMP: left branch island)."""
    who, thing = draw.one(NAMES), draw.one(THINGS)
    auxiliary, wh = draw.fill("[should|did|will|could|can]"), draw.fill("[whose|which]")
    verb = draw.one(HANDLING)
    return pair(f"{wh} {thing} {auxiliary} {who} {verb}", f"{wh} {auxiliary} {who} {verb} {thing}", question)


def structure_dependence(draw: Draw) -> list[tuple]:
    """A question fronts the auxiliary of the main clause, not the first one (Chomsky 1971; Crain and
    Nakayama 1987).
    """
    who, (inner, outer) = draw.one(PEOPLE), draw.some(TRAITS, 2)
    auxiliary = draw.fill("[is|was]")
    return pair(
        f"{auxiliary} the {who} who {auxiliary} {inner} {outer}",
        f"{auxiliary} the {who} who {inner} {auxiliary} {outer}",
        question,
    )


RULES = (
    agreement_across_a_phrase,
    agreement_across_a_clause,
    determiner_noun,
    reflexive_domain,
    argument_structure,
    polarity_scope,
    verb_form,
    auxiliary_form,
    phrase_order,
    gap_or_no_gap,
    adjunct_island,
    left_branch,
    structure_dependence,
)
