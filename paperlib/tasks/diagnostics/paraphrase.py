"""Paraphrase (MRPC): rewordings that keep the meaning against rearrangements that do not, in the spirit of
PAWS (Zhang et al. 2019).

Each family is one sentence with a paraphrase and one with a near copy that says something else: the same
words rearranged, one word exchanged, or all of them. Words are exchanged symmetrically, so that none of
them is a sign of either label.
"""

from paperlib.tasks.diagnostics.drawing import Draw
from paperlib.tasks.diagnostics.english import a, participle, past, plural, sentence
from paperlib.tasks.diagnostics.fields import far_miss, near_miss
from paperlib.tasks.diagnostics.lexicon import (
    ADJECTIVE_ANTONYMS,
    ADJECTIVE_SYNONYMS,
    CITIES,
    COLORS,
    COMPARATIVES,
    DAYS,
    INTRANSITIVE,
    KINDS,
    NAMES,
    NUMBERS,
    OBJECT_KINDS,
    PEOPLE,
    REVERSIBLE,
    TRAITS,
    VERB_SYNONYMS,
)

SAME, OTHER = "equivalent", "not_equivalent"


def verdicts(draw: Draw, original: str, same: str, other: str) -> list[tuple]:
    """A paraphrase, and either the rearrangement (`other`) or a sentence about something else."""
    other = draw.one((other, near_miss(draw, same), far_miss(draw, same)))
    return [(sentence(original), sentence(same), SAME), (sentence(original), sentence(other), OTHER)]


def thing(draw: Draw) -> str:
    return draw.one(KINDS[draw.one(OBJECT_KINDS)])


def news(draw: Draw) -> str:
    """A frame that makes a clause sound like a wire report."""
    return draw.fill(
        f"[on {draw.one(DAYS)}|last week|in {draw.one(CITIES)}|this morning"
        "|according to police|a witness said that|officials said that]"
    )


def voice(draw: Draw) -> list[tuple]:
    """Active and passive with kept or swapped roles."""
    one, other = draw.some(PEOPLE, 2)
    verb = draw.one(REVERSIBLE)
    frame, trait = news(draw), draw.one(TRAITS)
    active, passive = (
        f"{frame} the {trait} {one} {past(verb)} the {other}",
        f"{frame} the {other} was {participle(verb)} by the {trait} {one}",
    )
    swapped = f"{frame} the {trait} {one} was {participle(verb)} by the {other}"
    return (
        verdicts(draw, active, passive, swapped)
        if draw.maybe()
        else verdicts(draw, passive, active, f"{frame} the {other} {past(verb)} the {trait} {one}")
    )


def whose_trait(draw: Draw) -> list[tuple]:
    """Two adjectives exchanged between two nouns (PAWS: modifier swap)."""
    (one, other), (trait, another) = draw.some(PEOPLE, 2), draw.some(TRAITS, 2)
    verb, day = draw.one(REVERSIBLE), draw.one(DAYS)
    original = f"on {day} the {trait} {one} {past(verb)} the {another} {other}"
    return verdicts(
        draw,
        original,
        f"the {trait} {one} {past(verb)} the {another} {other} on {day}",
        f"the {another} {one} {past(verb)} the {trait} {other} on {day}",
    )


def journey(draw: Draw) -> list[tuple]:
    """From here to there, or from there to here (PAWS: flights from New York to Florida)."""
    who, (here, there) = draw.one(NAMES), draw.some(CITIES, 2)
    how = draw.fill("[flew|drove|walked|moved|sailed|cycled|ran]")
    when = draw.fill(f"[on {draw.one(DAYS)}|last month|two years ago|last summer|yesterday]")
    leave = (
        f"from {here} to {there}",
        f"to {there} from {here}",
        f"to {here} from {there}",
        f"from {there} to {here}",
    )
    original, same = draw.some(leave[:2], 2)
    front = draw.maybe()
    render = [
        f"{when} {who} {how} {route}" if early else f"{who} {how} {route} {when}"
        for route, early in ((original, front), (same, not front), (draw.one(leave[2:]), not front))
    ]
    return verdicts(draw, *render)


def transfer(draw: Draw) -> list[tuple]:
    """Buy and sell, lend and borrow, and the two datives."""
    one, other = draw.some(NAMES, 2)
    what = a(f"{draw.one(COLORS)} {thing(draw)}")
    give, take = draw.one((("sold", "bought"), ("lent", "borrowed"), ("gave", "got"), ("sent", "received")))
    giving = (
        f"{one} {give} {other} {what}",
        f"{one} {give} {what} to {other}",
        f"{other} {take} {what} from {one}",
    )
    reverse = (
        f"{other} {give} {one} {what}",
        f"{other} {give} {what} to {one}",
        f"{one} {take} {what} from {other}",
    )
    original, same = draw.some(giving, 2)
    when = draw.fill(f"[on {draw.one(DAYS)}|last month|last week|yesterday|]")
    return verdicts(draw, f"{original} {when}".strip(), f"{when} {same}", f"{when} {draw.one(reverse)}")


def clause_order(draw: Draw) -> list[tuple]:
    """Clauses may change places if the conjunction goes along."""
    (one, other), (first, second) = draw.some(PEOPLE, 2), draw.some(INTRANSITIVE, 2)
    early, late = f"the {one} {past(first)}", f"the {other} {past(second)}"
    link = draw.fill("[before|after|because|although]")
    original, same, swapped = f"{link} {early}, {late}", f"{late} {link} {early}", f"{early} {link} {late}"
    return (
        verdicts(draw, original, same, swapped)
        if draw.maybe()
        else verdicts(draw, same, original, f"{link} {late}, {early}")
    )


def comparison(draw: Draw) -> list[tuple]:
    """Converse comparatives."""
    (one, other), (more, less) = draw.some(PEOPLE, 2), draw.some(draw.one(COMPARATIVES), 2)
    end = draw.fill(f"[in {draw.one(CITIES)}|from {draw.one(CITIES)}]")
    original = f"the {one} {end} is {more} than the {other}"
    return verdicts(
        draw,
        original,
        f"the {other} is {less} than the {one} {end}",
        draw.one((f"the {other} is {more} than the {one} {end}", f"the {one} {end} is {less} than the {other}")),
    )


def lexical(draw: Draw) -> list[tuple]:
    """A synonym keeps the sentence, another verb does not."""
    verbs, who, what = draw.some(draw.one(VERB_SYNONYMS), 2), draw.one(PEOPLE), thing(draw)
    other = draw.one([verb for pair in VERB_SYNONYMS for verb in pair if verb not in verbs])
    frame, trait = news(draw), draw.one(TRAITS)
    return verdicts(draw, *(f"{frame} the {trait} {who} {past(verb)} the {what}" for verb in (*verbs, other)))


# verb, past tense, and the same of its opposite
OPPOSITES = (
    ("accept", "accepted", "reject", "rejected"),
    ("remember", "remembered", "forget", "forgot"),
    ("keep", "kept", "lose", "lost"),
    ("finish", "finished", "abandon", "abandoned"),
    ("allow", "allowed", "forbid", "forbade"),
    ("win", "won", "lose", "lost"),
)


def denial(draw: Draw) -> list[tuple]:
    """Denying a word is asserting its opposite, not asserting the word."""
    verb, did, opposite, did_opposite = draw.one(OPPOSITES)
    (verb, did), (opposite, did_opposite) = draw.some(((verb, did), (opposite, did_opposite)), 2)
    who = f"the {draw.one(TRAITS)} {draw.one(PEOPLE)}"
    what = draw.fill("the [offer|plan|deal|letter|game|trip|contract|party|meeting]")
    denied, asserted = f"{who} did not {verb} {what}", f"{who} {did_opposite} {what}"
    if draw.maybe():
        return verdicts(draw, denied, asserted, f"{who} {did} {what}")
    return verdicts(draw, asserted, denied, f"{who} did not {opposite} {what}")


def figures(draw: Draw) -> list[tuple]:
    """Two numbers exchanged between two things."""
    who, (few, many) = draw.one(PEOPLE), draw.some(NUMBERS, 2)
    one, other = map(plural, draw.some(KINDS[draw.one(("animal", "bird", "tool", "flower"))], 2))
    where = draw.fill(f"[in {draw.one(CITIES)}|on {draw.one(DAYS)}|last week]")
    verb = past(draw.one(("buy", "sell", "find", "draw", "photograph", "steal", "count")))
    line = f"the {who} {verb} {{}} {{}} and {{}} {{}} {where}"
    return verdicts(
        draw,
        line.format(few, one, many, other),
        line.format(many, other, few, one),
        line.format(few, other, many, one),
    )


def impression(draw: Draw) -> list[tuple]:
    """Synonymous adjectives against opposite ones."""
    one, other = draw.some(PEOPLE, 2)
    frame = f"{news(draw)} the {one} seemed {{}} to the {other}"
    rows = []
    for pairs, verdict in ((ADJECTIVE_SYNONYMS, SAME), (ADJECTIVE_ANTONYMS, OTHER)):
        first, second = draw.some(draw.one(pairs), 2)
        rows.append((sentence(frame.format(first)), sentence(frame.format(second)), verdict))
    return rows


RULES = (
    voice,
    whose_trait,
    journey,
    transfer,
    clause_order,
    comparison,
    lexical,
    denial,
    figures,
    impression,
)
