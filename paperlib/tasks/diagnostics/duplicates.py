"""Duplicate questions (QQP): rewordings against exchanges of arguments, in the spirit of PAWS-QQP (Zhang
et al. 2019).
"""

from paperlib.tasks.diagnostics.drawing import Draw
from paperlib.tasks.diagnostics.english import gerund, participle, plural, question
from paperlib.tasks.diagnostics.fields import far_miss, near_miss
from paperlib.tasks.diagnostics.lexicon import (
    CITIES,
    COMPARATIVES,
    FOODS,
    KINDS,
    PEOPLE,
    SKILLS,
    SUBJECTS,
    UNITS,
)

DUPLICATE, NOT_DUPLICATE = "duplicate", "not_duplicate"


def judged(draw: Draw, original: str, same: str, other: str) -> list[tuple]:
    """A duplicate, and either the exchange of arguments (`other`) or a question about something else."""
    other = draw.one((other, near_miss(draw, same), far_miss(draw, same)))
    return [
        (question(original), question(same), DUPLICATE),
        (question(original), question(other), NOT_DUPLICATE),
    ]


def conversion(draw: Draw) -> list[tuple]:
    """From one unit to the other, or back."""
    one, other = draw.some(UNITS, 2)
    asks = draw.some(
        (
            "how do I convert {0} to {1}",
            "what is the easiest way to turn {0} into {1}",
            "how can I change {0} into {1}",
            "how does one get from {0} to {1}",
            "to convert {0} to {1}, what should I do",
        ),
        3,
    )
    return judged(
        draw,
        asks[0].format(one, other),
        asks[1].format(one, other),
        asks[draw.one((1, 2))].format(other, one),
    )


def travel(draw: Draw) -> list[tuple]:
    """There or back."""
    one, other = draw.some(CITIES, 2)
    how, start = (
        draw.fill("[train|bus|flight|car ride|ferry]"),
        draw.fill("[how long is|what is the price of|how safe is|how comfortable is]"),
    )
    routes = (f"from {one} to {other}", f"to {other} from {one}")
    back = (f"from {other} to {one}", f"to {one} from {other}")
    first, second = draw.some(routes, 2)
    return judged(
        draw,
        f"{start} the {how} {first}",
        f"{start} the {how} {second}",
        f"{start} the {how} {draw.one(back)}",
    )


def comparison(draw: Draw) -> list[tuple]:
    """Converse comparatives."""
    (one, other), (more, less) = (
        draw.some(PEOPLE, 2),
        draw.some(draw.one((*COMPARATIVES, ("better", "worse"))), 2),
    )
    frame = draw.fill("[are|why are|when are|how can it be that]")
    verb = " are" if frame.startswith("how") else ""
    ask = f"{frame} {{}}{verb} {{}} than {{}}"
    one, other = plural(one), plural(other)
    return judged(
        draw,
        ask.format(one, more, other),
        ask.format(other, less, one),
        draw.one((ask.format(other, more, one), ask.format(one, less, other))),
    )


def behavior(draw: Draw) -> list[tuple]:
    """Active and passive questions with kept or swapped roles."""
    one, other = (plural(animal) for animal in draw.some(KINDS["animal"], 2))
    verb = draw.one(("chase", "fear", "follow", "avoid", "attack", "watch", "hate", "love", "bite", "protect"))
    often = draw.fill("[always|often|sometimes|never]")
    active, passive = (
        f"why do {{0}} {often} {verb} {{1}}",
        f"why are {{1}} {often} {participle(verb)} by {{0}}",
    )
    first, second = draw.some((active, passive), 2)
    return judged(draw, first.format(one, other), second.format(one, other), second.format(other, one))


def replacement(draw: Draw) -> list[tuple]:
    """Which food stands in for which."""
    one, other = draw.some(FOODS, 2)
    dish = draw.fill("[a soup|a pie|a salad|a sauce|a stew|an omelet]")
    asks = draw.some(
        (
            f"can I use {{0}} instead of {{1}} in {dish}",
            f"is it fine to replace {{1}} with {{0}} in {dish}",
            f"in {dish}, can {{0}} take the place of {{1}}",
            f"could {{1}} be replaced by {{0}} in {dish}",
        ),
        2,
    )
    return judged(draw, asks[0].format(one, other), asks[1].format(one, other), asks[1].format(other, one))


def order(draw: Draw) -> list[tuple]:
    """Before and after."""
    one, other = draw.some(SKILLS + SUBJECTS, 2)
    one, other = (f"how to {word}" if word in SKILLS else word for word in (one, other))
    start = draw.fill("[should I learn|is it better to learn|does one need to learn|why do people learn]")
    first, second = draw.some((f"{start} {one} before {other}", f"{start} {other} after {one}"), 2)
    return judged(draw, first, second, draw.one((f"{start} {other} before {one}", f"{start} {one} after {other}")))


def wording(draw: Draw) -> list[tuple]:
    """The same question in other words, or another question in the same words."""
    skill, another = draw.some(SKILLS, 2)
    place, there = draw.some(CITIES, 2)
    asks = draw.some(
        (
            f"how do I learn to {skill} in {place}",
            f"what is the best way to start {gerund(skill)} in {place}",
            f"where in {place} can I take {gerund(skill)} lessons",
            f"who can teach me to {skill} in {place}",
            f"I live in {place} and want to {skill}, how do I begin",
        ),
        2,
    )
    wrong = (
        asks[1].replace(place, there)
        if draw.maybe()
        else asks[1].replace(gerund(skill), gerund(another)).replace(skill, another)
    )
    return judged(draw, *asks, wrong)


RULES = (conversion, travel, comparison, behavior, replacement, order, wording)
