"""Entailment (MNLI, RTE): one rule per inference, in the spirit of HANS (McCoy et al. 2019), MED (Yanaka et
al. 2019) and the FraCaS suite.

A three-way rule draws one row per label; premise polarity and order are drawn too, so that "not" or a
hypernym alone decides nothing. RTE keeps the entailment and one of the other two rows.
"""

from functools import wraps

from paperlib.tasks.diagnostics.drawing import Draw, Rule
from paperlib.tasks.diagnostics.english import a, participle, past, plural, sentence
from paperlib.tasks.diagnostics.lexicon import (
    ADJECTIVE_ANTONYMS,
    ADJECTIVE_SYNONYMS,
    ANIMATE_KINDS,
    CITIES,
    COLORS,
    COMPARATIVES,
    HANDLING,
    INTRANSITIVE,
    KINDS,
    NAMES,
    OBJECT_KINDS,
    PEOPLE,
    PLACES,
    REVERSIBLE,
    TRAITS,
)

ENTAILMENT, NEUTRAL, CONTRADICTION = "entailment", "neutral", "contradiction"


def triple(entailed: tuple[str, str], open_: tuple[str, str], denied: tuple[str, str]) -> list[tuple]:
    """Three (premise, hypothesis) pairs as one row per label."""
    pairs = ((entailed, ENTAILMENT), (open_, NEUTRAL), (denied, CONTRADICTION))
    return [(sentence(premise), sentence(hypothesis), label) for (premise, hypothesis), label in pairs]


def two_way(rule: Rule) -> Rule:
    """The rule with neutral and contradiction merged into not_entailment, one of them per family."""

    @wraps(rule)
    def merged(draw: Draw) -> list[tuple]:
        entailed, *others = rule(draw)
        return [entailed, (*draw.one(others)[:2], "not_entailment")]

    return merged


def someone(draw: Draw) -> str:
    return draw.fill(f"the [{draw.one(TRAITS)} |{draw.one(TRAITS)} |]{draw.one(PEOPLE)}")


def deed(verb: str, done: bool) -> str:
    return past(verb) if done else f"did not {verb}"


def monotonicity(draw: Draw) -> list[tuple]:
    """Under "every" and "no" the noun may shrink, under "some" it may grow (van Benthem 1986; MED)."""
    kind = draw.one(ANIMATE_KINDS)
    wide, narrow = kind, draw.one(KINDS[kind])
    state = draw.fill("[slept|was hungry|looked sick|was tired|ran away|was white|was old|looked happy]")
    rest = f"in the {draw.one(PLACES)} {state}"
    shrinks = draw.one(("every", "no"))
    if draw.maybe():
        return triple(
            (f"{shrinks} {wide} {rest}", f"{shrinks} {narrow} {rest}"),
            (f"{shrinks} {narrow} {rest}", f"{shrinks} {wide} {rest}"),
            (f"no {wide} {rest}", f"{draw.one(('every', 'some'))} {narrow} {rest}"),
        )
    return triple(
        (f"some {narrow} {rest}", f"some {wide} {rest}"),
        (f"some {wide} {rest}", f"some {narrow} {rest}"),
        (f"some {narrow} {rest}", f"no {wide} {rest}"),
    )


# premise quantifier, hypothesis quantifier
FOLLOWS = (("all", "some"), ("no", "not all"), ("most", "some"), ("all", "most"))
OPEN = (("some", "all"), ("not all", "no"), ("some", "most"), ("most", "all"))
EXCLUDED = (
    ("all", "no"),
    ("no", "some"),
    ("all", "not all"),
    ("not all", "all"),
    ("no", "all"),
    ("some", "no"),
)


def square_of_opposition(draw: Draw) -> list[tuple]:
    """Quantifiers against one another: all, most, some, not all, no."""
    rest = f"{plural(draw.one(PEOPLE))} in the {draw.one(PLACES)} {past(draw.one(INTRANSITIVE))}"
    return triple(
        *((f"{one} {rest}", f"{two} {rest}") for one, two in (draw.one(FOLLOWS), draw.one(OPEN), draw.one(EXCLUDED)))
    )


def roles(draw: Draw) -> list[tuple]:
    """Who did what to whom: a passive keeps the roles, a swap does not (HANS: lexical overlap)."""
    one, other, verb = someone(draw), someone(draw), draw.one(REVERSIBLE)
    done = draw.maybe()
    was = {True: "was", False: "was not"}
    premise = f"{one} {deed(verb, done)} {other}"
    if draw.maybe():
        return triple(
            (premise, f"{other} {was[done]} {participle(verb)} by {one}"),
            (premise, f"{one} {was[done]} {participle(verb)} by {other}"),
            (premise, f"{other} {was[not done]} {participle(verb)} by {one}"),
        )
    premise = f"{other} {was[done]} {participle(verb)} by {one}"
    return triple(
        (premise, f"{one} {deed(verb, done)} {other}"),
        (premise, f"{other} {deed(verb, done)} {one}"),
        (premise, f"{one} {deed(verb, not done)} {other}"),
    )


def comparatives(draw: Draw) -> list[tuple]:
    """A comparative and its converse; another scale stays open."""
    (one, other), ((more, less), (further, _)) = draw.some(NAMES, 2), draw.some(COMPARATIVES, 2)
    more, less = draw.some((more, less), 2)
    premise = draw.fill(f"{one} is [|much |a little ]{more} than {other}")
    return triple(
        (premise, f"{other} is {less} than {one}"),
        (premise, f"{other} is {further} than {one}"),
        (premise, draw.fill(f"[{one} is {less} than {other}|{other} is {more} than {one}]")),
    )


def constituents(draw: Draw) -> list[tuple]:
    """A noun beside the subject is not the subject (HANS: subsequence)."""
    (one, other), verb, done = draw.some(PEOPLE, 2), draw.one(INTRANSITIVE), draw.maybe()
    link = draw.fill(f"[next to|behind|near|who {past(draw.one(REVERSIBLE))}|that {past(draw.one(REVERSIBLE))}]")
    premise = f"the {one} {link} the {other} {deed(verb, done)} in the {draw.one(PLACES)}"
    return triple(
        (premise, f"the {one} {deed(verb, done)}"),
        (premise, f"the {other} {deed(verb, done)}"),
        (premise, f"the {one} {deed(verb, not done)}"),
    )


def coordination(draw: Draw) -> list[tuple]:
    """And, or, neither-nor (HANS: constituent)."""
    (one, other), verb = draw.some(NAMES, 2), draw.one(INTRANSITIVE)
    where = f"in the {draw.one(PLACES)}"
    who, done = draw.one((one, other)), draw.maybe()
    conjoined = {
        True: f"both {one} and {other} {past(verb)} {where}",
        False: f"neither {one} nor {other} {past(verb)} {where}",
    }
    return triple(
        (conjoined[done], f"{who} {deed(verb, done)} {where}"),
        (f"either {one} or {other} {past(verb)} {where}", f"{who} {deed(verb, done)} {where}"),
        (conjoined[not done], f"{who} {deed(verb, done)} {where}"),
    )


def implicatives(draw: Draw) -> list[tuple]:
    """Managed to, failed to, hoped to (Karttunen 1971)."""
    who, verb, done = draw.one(NAMES), draw.one(HANDLING), draw.maybe()
    what = f"the {draw.one(COLORS)} {draw.one(KINDS[draw.one(OBJECT_KINDS)])}"
    did = draw.fill("[managed|remembered|did not fail|did not forget] to")
    did_not = draw.fill("[failed|forgot|did not manage|refused] to")
    wanted = draw.fill("[hoped|planned|wanted|did not want|promised|did not plan] to")
    implied = {True: did, False: did_not}
    hypothesis = f"{who} {deed(verb, done)} {what}"
    return triple(
        *((f"{who} {matrix} {verb} {what}", hypothesis) for matrix in (implied[done], wanted, implied[not done]))
    )


def order_of_events(draw: Draw) -> list[tuple]:
    """Before and after are converses; "because" says more than both."""
    (one, other), (first, second) = draw.some(NAMES, 2), draw.some(INTRANSITIVE, 2)
    early, late = f"{one} {past(first)}", f"{other} {past(second)}"
    told, again = draw.some((f"{early} before {late}", f"{late} after {early}"), 2)
    cause = f"{late} because {early}"
    return triple(
        (draw.one((told, cause)), again),
        (told, cause),
        (told, draw.one((f"{late} before {early}", f"{early} after {late}"))),
    )


def modifiers(draw: Draw) -> list[tuple]:
    """Dropping a modifier is safe, adding one is not, replacing a color excludes."""
    who, verb = draw.one(NAMES), past(draw.one(HANDLING))
    color, other = draw.some(COLORS, 2)
    kind = draw.one(OBJECT_KINDS)
    thing = draw.one(KINDS[kind])
    time = draw.fill("[on Monday|last week|in the morning|at night|in April]")
    full, plain = f"{who} {verb} the {color} {thing} {time}", f"{who} {verb} the {color} {thing}"
    return triple(
        draw.one(((full, plain), (full, f"{who} {verb} {a(kind)} {time}"))),
        draw.one(((plain, full), (f"{who} {verb} {a(kind)} {time}", f"{who} {verb} {a(thing)} {time}"))),
        draw.one(
            (
                (full, f"the {thing} that {who} {verb} was {other}"),
                (plain, f"{who} never {verb} anything {color}"),
            )
        ),
    )


def apposition(draw: Draw) -> list[tuple]:
    """An apposition holds of the name it stands at (RTE: Anna, the mayor of Oslo, met Peter)."""
    (one, other), (here, there) = draw.some(NAMES, 2), draw.some(CITIES, 2)
    office = draw.fill("[mayor|bishop|governor] of")
    verb = past(draw.one(REVERSIBLE))
    premise = draw.one(
        (
            f"{one}, the {office} {here}, {verb} {other} in {there}",
            f"{one} {verb} {other}, the {office} {here}, in {there}",
        )
    )
    holder, guest = (one, other) if premise.startswith(f"{one},") else (other, one)
    return triple(
        (premise, f"{holder} is the {office} {here}"),
        (premise, draw.one((f"{holder} lives in {there}", f"{guest} lives in {there}"))),
        (premise, draw.one((f"{guest} is the {office} {here}", f"{holder} is the {office} {there}"))),
    )


def word_meaning(draw: Draw) -> list[tuple]:
    """Synonyms, antonyms and unrelated traits; the premise may be denied."""
    who = draw.fill(
        f"the {draw.one(PEOPLE)} [from {draw.one(CITIES)}|in the {draw.one(PLACES)}|near the {draw.one(PLACES)}]"
    )
    one, same = draw.some(draw.one(ADJECTIVE_SYNONYMS), 2)
    trait, opposite = draw.some(draw.one(ADJECTIVE_ANTONYMS), 2)
    other = draw.one([word for word in TRAITS if word not in (one, same, trait, opposite)])
    is_, is_not = "is", "is not"
    true, false = draw.one(((is_, is_not), (is_not, is_)))
    return triple(
        (f"{who} {true} {one}", f"{who} {true} {same}"),
        (f"{who} {true} {trait}", f"{who} {draw.one((is_, is_not))} {other}"),
        draw.one(((f"{who} {true} {one}", f"{who} {false} {same}"), (f"{who} is {trait}", f"{who} is {opposite}"))),
    )


THREE_WAY = (
    monotonicity,
    square_of_opposition,
    roles,
    comparatives,
    constituents,
    coordination,
    implicatives,
    order_of_events,
    modifiers,
    apposition,
    word_meaning,
)
TWO_WAY = tuple(map(two_way, THREE_WAY))
