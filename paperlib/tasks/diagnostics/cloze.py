"""Cloze questions on short passages (ReCoRD, Zhang et al. 2018): whose name, or which city, is missing.

The candidates are all people and cities of the passage, in its order; each is the answer to some query
about it.
"""

from paperlib.tasks.diagnostics.drawing import Draw
from paperlib.tasks.diagnostics.english import a, participle, passage, past, sentence
from paperlib.tasks.diagnostics.lexicon import (
    CITIES,
    COLORS,
    COMPARATIVES,
    INTRANSITIVE,
    KINDS,
    MONTHS,
    NAMES,
    PLACES,
    REVERSIBLE,
    words,
)

GAP = "@placeholder"
SPORTS = words("tennis golf hockey chess soccer cricket")


def cloze(told: str, query: str, entities: list[str], answer: str) -> list[tuple]:
    """A row of ReCoRD: `entities` in the order of the passage; the label is the index of the answer."""
    order = sorted(entities, key=told.index)
    return [(told, sentence(query), order, [answer], order.index(answer))]


# two ways to tell it
ABODES = (
    ("{who} moved to {city}", "{who} found a new home in {city}"),
    ("{who} bought a house in {city}", "a house in {city} was bought by {who}"),
    ("{who} opened a shop in {city}", "the shop of {who} opened in {city}"),
    ("{who} studied in {city}", "{who} was a student in {city}"),
    ("{who} got lost in {city}", "the streets of {city} confused {who}"),
    ("{who} met the mayor of {city}", "the mayor of {city} talked to {who}"),
)


def who_has_it(draw: Draw) -> list[tuple]:
    """Transfer: who gave, who got."""
    one, other, third = draw.some(NAMES, 3)
    thing = f"{draw.one(COLORS)} {draw.one(KINDS[draw.one(('instrument', 'tool', 'vehicle'))])}"
    give, take = draw.one((("sold", "bought"), ("lent", "borrowed"), ("gave", "got")))
    city = draw.one(CITIES)
    told = passage(
        f"{third} has known {one} and {other} since {draw.fill('[school|childhood|last year|the war]')}",
        draw.one((f"{one} {give} {other} {a(thing)}", f"{other} {take} {a(thing)} from {one}")),
        f"it was in {city}",
    )
    query, answer = draw.one(
        (
            (f"the {thing} is now in the house of @placeholder", other),
            (f"@placeholder no longer has the {thing}", one),
            (f"@placeholder did not see the {thing}", third),
        )
    )
    return cloze(told, query, [one, other, third, city], answer)


def who_and_where(draw: Draw) -> list[tuple]:
    """Two people, two cities: the gap wants a person or a city, and the right one; in the words of the
    passage or in others.
    """
    people, cities, months = draw.some(NAMES, 2), draw.some(CITIES, 2), draw.some(MONTHS, 2)
    tellings = draw.one(ABODES)
    said, asked = draw.one(tellings), draw.one(tellings)
    told = passage(
        *(
            f"in {month} {said.format(who=who, city=city)}"
            for who, city, month in zip(people, cities, months, strict=True)
        ),
        draw.fill(f"[both|they] like {draw.one(SPORTS)}"),
    )
    which = int(draw.maybe())
    who, city = people[which], cities[which]
    query, answer = draw.one(((asked.format(who=GAP, city=city), who), (asked.format(who=who, city=GAP), city)))
    return cloze(told, f"in {months[which]} {query}", [*people, *cities], answer)


def who_was_it(draw: Draw) -> list[tuple]:
    """Active in the passage, passive in the query, or the other way round."""
    one, other, third = draw.some(NAMES, 3)
    first, second = draw.some(REVERSIBLE, 2)
    place = draw.one(PLACES)
    told = passage(
        f"in the {place} {one} {past(first)} {other}",
        f"then {other} {past(second)} {third}",
        draw.fill(f"[everybody|nobody] {past(draw.one(INTRANSITIVE))}"),
    )
    query, answer = draw.one(
        (
            (f"in the {place} @placeholder was {participle(first)} by {one}", other),
            (f"then @placeholder was {participle(second)} by {other}", third),
            (f"{other} was {participle(first)} by @placeholder", one),
        )
    )
    return cloze(told, query, [one, other, third], answer)


def who_is_first(draw: Draw) -> list[tuple]:
    """A superlative over two comparatives."""
    people, (more, less) = draw.some(NAMES, 3), draw.one(COMPARATIVES)
    one, two, three = people
    city = draw.one(CITIES)
    told = passage(
        f"{one} is {more} than {two}",
        f"{three} is {less} than {two}",
        draw.fill(f"all three [met|grew up|study|work] in {city}"),
    )
    best, worst = (word[:-1] + "st" for word in (more, less))
    query, answer = draw.one(
        (
            (f"the {best} of the three from {city} is @placeholder", one),
            (f"the {worst} of the three from {city} is @placeholder", three),
            (f"neither the {best} nor the {worst} of those from {city} is @placeholder", two),
        )
    )
    return cloze(told, query, people, answer)


RULES = (who_and_where, who_has_it, who_and_where, who_was_it, who_and_where, who_is_first)
