"""Graded similarity (STS-B): a clause, a list of edits, and a price for each edit.

The score of a pair is 5 minus the prices of the edits between its sentences, not below 0; it counts
meaning, so a rewording is nearly free and an exchange of roles is dear although no word changes. The
annotation scale is that of Agirre et al. (2012): 5 same meaning, 4 unimportant details differ, 3 important
details differ, 1 same topic, 0 unrelated.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from paperlib.tasks.diagnostics.drawing import Draw
from paperlib.tasks.diagnostics.english import participle, past, sentence
from paperlib.tasks.diagnostics.lexicon import (
    ADJECTIVE_SYNONYMS,
    COLORS,
    DAYS,
    KINDS,
    NAMES,
    OBJECT_KINDS,
    PEOPLE,
    PLACES,
    VERB_SYNONYMS,
    words,
)

VERBS = tuple(verb for pair in VERB_SYNONYMS for verb in pair)
SYNONYM = {one: other for pair in VERB_SYNONYMS + ADJECTIVE_SYNONYMS for one, other in (pair, pair[::-1])}
GRADED_TRAITS = tuple(word for pair in ADJECTIVE_SYNONYMS for word in pair if word not in ("big", "large", "afraid"))


@dataclass(frozen=True)
class Clause:
    """Who did what to which thing, where and when; voice and front are matters of wording only."""

    person: str
    trait: str
    verb: str
    color: str
    kind: str
    thing: str
    place: str
    day: str
    denied: bool = False
    passive: bool = False
    front: bool = False

    def __str__(self) -> str:
        person, thing = f"the {self.trait} {self.person}", f"the {self.color} {self.thing}"
        if self.passive:
            core = f"{thing} was {'not ' * self.denied}{participle(self.verb)} by {person}"
        else:
            core = f"{person} {f'did not {self.verb}' if self.denied else past(self.verb)} {thing}"
        where = f"{core} in the {self.place}"
        return sentence(f"on {self.day} {where}" if self.front else f"{where} on {self.day}")


def clause(draw: Draw) -> Clause:
    kind = draw.one(OBJECT_KINDS)
    return Clause(
        person=draw.one(PEOPLE),
        trait=draw.one(GRADED_TRAITS),
        verb=draw.one(VERBS),
        color=draw.one(COLORS),
        kind=kind,
        thing=draw.one(KINDS[kind]),
        place=draw.one(PLACES),
        day=draw.one(DAYS),
        denied=draw.maybe(0.2),
        passive=draw.maybe(0.3),
        front=draw.maybe(0.3),
    )


def another(draw: Draw, options: tuple[str, ...], *used: str) -> str:
    return draw.one([option for option in options if option not in used])


# One edit per slot: (slot, price, what the slot becomes). Within a slot, the nearer the meaning, the lower
# the price.
Edit = tuple[str, float, Callable[[Draw, Clause], dict]]
EDITS: tuple[Edit, ...] = (
    ("voice", 0.1, lambda draw, c: {"passive": not c.passive}),
    ("front", 0.1, lambda draw, c: {"front": not c.front}),
    ("verb", 0.2, lambda draw, c: {"verb": SYNONYM[c.verb]}),
    ("trait", 0.2, lambda draw, c: {"trait": SYNONYM[c.trait]}),
    ("day", 0.5, lambda draw, c: {"day": another(draw, DAYS, c.day)}),
    ("trait", 0.7, lambda draw, c: {"trait": another(draw, GRADED_TRAITS, c.trait, SYNONYM[c.trait])}),
    ("color", 0.8, lambda draw, c: {"color": another(draw, COLORS, c.color)}),
    ("place", 1.0, lambda draw, c: {"place": another(draw, PLACES, c.place)}),
    ("thing", 1.1, lambda draw, c: {"thing": another(draw, KINDS[c.kind], c.thing)}),
    ("person", 1.5, lambda draw, c: {"person": another(draw, PEOPLE, c.person)}),
    ("verb", 1.7, lambda draw, c: {"verb": another(draw, VERBS, c.verb, SYNONYM[c.verb])}),
    ("thing", 1.9, lambda draw, c: dict(zip(("kind", "thing"), other_kind(draw, c), strict=True))),
    ("denial", 2.2, lambda draw, c: {"denied": not c.denied}),
)


def other_kind(draw: Draw, c: Clause) -> tuple[str, str]:
    kind = another(draw, OBJECT_KINDS, c.kind)
    return kind, draw.one(KINDS[kind])


def edited(draw: Draw, original: Clause, count: int) -> tuple[Clause, float]:
    """The clause after up to `count` edits of different slots, and its score."""
    changed, price, slots = original, 0.0, set()
    for slot, cost, edit in draw.some(EDITS, count):
        if slot not in slots:
            slots.add(slot)
            changed, price = replace(changed, **edit(draw, original)), price + cost
    return changed, max(0.0, round(5.0 - price, 2))


def edits(draw: Draw) -> list[tuple]:
    """A clause and its edited copy."""
    original = clause(draw)
    changed, score = edited(draw, original, 1 + int(draw.rng.integers(7)))
    return [(str(original), str(changed), score)]


VOICES = ("{0} {past} {1}", "{1} was {participle} by {0}")
CONTACTS = words("call follow thank blame visit help praise warn hug watch")


def exchange(draw: Draw) -> list[tuple]:
    """Two names and one deed: roles kept or exchanged (price 2.4), voice kept or not (0.1), day kept or not
    (0.5).
    """
    people, verb, day = draw.some(NAMES, 2), draw.one(CONTACTS), draw.one(DAYS)
    swapped, revoiced, moved = draw.maybe(), draw.maybe(), draw.maybe()
    voices, where = draw.some(VOICES, 2), f"in the {draw.one(PLACES)}"

    def told(voice: str, names: list[str], when: str) -> str:
        return sentence(f"{voice.format(*names, past=past(verb), participle=participle(verb))} {where} on {when}")

    first = told(voices[0], people, day)
    second = told(voices[revoiced], people[::-1] if swapped else people, another(draw, DAYS, day) if moved else day)
    return [(first, second, round(5.0 - 2.4 * swapped - 0.1 * revoiced - 0.5 * moved, 2))]


def unrelated(draw: Draw) -> list[tuple]:
    """Two clauses drawn apart."""
    return [(str(clause(draw)), str(clause(draw)), 0.0)]


RULES = (edits, edits, edits, exchange, edits, edits, edits, unrelated)
