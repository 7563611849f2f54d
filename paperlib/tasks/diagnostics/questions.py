"""Questions: duplicates (QQP) and questions with or without their answer (QNLI).

QQP: rewordings against exchanges of arguments, in the spirit of PAWS-QQP (Zhang et al. 2019). QNLI: the
sentence talks of the asked event either way, but answers another wh-word, about another participant, or of
another time.
"""

from paperlib.tasks.diagnostics.drawing import Draw
from paperlib.tasks.diagnostics.english import a, gerund, participle, past, plural, question, sentence
from paperlib.tasks.diagnostics.fields import far_miss, near_miss
from paperlib.tasks.diagnostics.lexicon import (
    CITIES,
    COMPARATIVES,
    DAYS,
    FOODS,
    KINDS,
    MONTHS,
    NAMES,
    PEOPLE,
    PLACES,
    REVERSIBLE,
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
    verb = draw.one(
        ("chase", "fear", "follow", "avoid", "attack", "watch", "hate", "love", "bite", "protect")
    )
    often = draw.fill("[always|often|sometimes|never]")
    active, passive = (
        f"why do {{0}} {often} {verb} {{1}}",
        f"why are {{1}} {often} {participle(verb) if verb != 'bite' else 'bitten'} by {{0}}",
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
    return judged(
        draw, first, second, draw.one((f"{start} {other} before {one}", f"{start} {one} after {other}"))
    )


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


DUPLICATES = (conversion, travel, comparison, behavior, replacement, order, wording)


ANSWERED, UNANSWERED = "entailment", "not_entailment"


def paired(draw: Draw, asked: str, answer: str, other: str, elsewhere: str) -> list[tuple]:
    """A question with its answer, and with a sentence that misses the point (`other`) or tells of another
    event (`elsewhere`).
    """
    return [
        (question(asked), sentence(answer), ANSWERED),
        (question(asked), sentence(draw.one((other, elsewhere, elsewhere))), UNANSWERED),
    ]


# past tense, bare form, participle, things it is done to
DEEDS = (
    ("built", "build", "built", ("bridge", "tower", "house")),
    ("painted", "paint", "painted", ("church", "door", "picture")),
    ("repaired", "repair", "repaired", ("clock", "roof", "organ")),
    ("wrote", "write", "written", ("song", "poem", "letter")),
    ("stole", "steal", "stolen", ("crown", "statue", "ring")),
    ("found", "find", "found", ("coin", "map", "tomb")),
    ("designed", "design", "designed", ("garden", "palace", "square")),
    ("bought", "buy", "bought", ("hotel", "island", "farm")),
    ("closed", "close", "closed", ("mine", "school", "station")),
)


def event(draw: Draw) -> dict[str, str]:
    """One deed with an answer to every wh-word."""
    did, do, done, things = draw.one(DEEDS)
    return {
        "who": draw.one(NAMES),
        "did": did,
        "do": do,
        "done": done,
        "thing": f"the {draw.fill('[old|first|famous|stone|royal|little]')} {draw.one(things)}",
        "where": f"in {draw.one(CITIES)}",
        "when": draw.fill(
            f"[in {draw.one(MONTHS)}|on {draw.one(DAYS)}|in 18{draw.one('3456789')}{draw.one('0123456789')}]"
        ),
        "why": draw.fill(
            "[for money|to please the king|out of love|for the children|to win a bet|because of a war]"
        ),
        "how": draw.fill("[with two friends|alone|with great care|with a loan|in one night|without help]"),
    }


def two_events(draw: Draw) -> tuple[dict[str, str], dict[str, str]]:
    """Two events that share neither person nor thing."""
    one, other = event(draw), event(draw)
    while one["who"] == other["who"] or one["do"] == other["do"]:
        other = event(draw)
    return one, other


def wh_word(draw: Draw) -> list[tuple]:
    """Where, when, why, how: the sentence tells of the asked event but fills another slot."""
    facts, elsewhere = two_events(draw)
    slot, other, further = draw.some(("where", "when", "why", "how"), 3)

    def told(of: dict[str, str], *slots: str) -> str:
        return " ".join((of["who"], of["did"], of["thing"], *(of[name] for name in draw.some(slots, 2))))

    return paired(
        draw,
        f"{slot} did {facts['who']} {facts['do']} {facts['thing']}",
        told(facts, slot, further),
        told(facts, other, further),
        told(elsewhere, slot, further),
    )


def agent(draw: Draw) -> list[tuple]:
    """By whom, or for whom: one sentence names the agent, the other the beneficiary."""
    facts, elsewhere = two_events(draw)
    end = draw.one(("where", "when"))

    def told(of: dict[str, str], link: str) -> str:
        return f"{of['thing']} was {of['done']} {of[end]} {link} {of['who']}"

    link, wrong = draw.some(("by", "for"), 2)
    return paired(
        draw,
        f"{link} whom was {facts['thing']} {facts['done']}",
        told(facts, link),
        told(facts, wrong),
        told(elsewhere, link),
    )


def other_participant(draw: Draw) -> list[tuple]:
    """The fact is told of the asked person, or of a relative."""
    (one, stranger), other, (here, there) = draw.some(NAMES, 2), draw.one(PEOPLE), draw.some(CITIES, 2)
    asked, verb = draw.one(
        (
            ("where was {} born", "was born in"),
            ("where did {} grow up", "grew up in"),
            ("in which city does {} work", "works in"),
            ("where did {} study", "studied in"),
            ("in which city does {} live", "lives in"),
            ("where did {} die", "died in"),
        )
    )
    relation = draw.fill("[father|mother|uncle|teacher|neighbor|boss]")
    origin = draw.fill(f"{a(other)} [in|from|near] {there}")
    of_one, of_relation = (
        f"{{}}, whose {relation} is {origin}, {verb} {here}",
        f"the {relation} of {{}}, {origin}, {verb} {here}",
    )
    if draw.maybe():
        return paired(
            draw, asked.format(one), of_one.format(one), of_relation.format(one), of_one.format(stranger)
        )
    return paired(
        draw,
        asked.format(f"the {relation} of {one}"),
        of_relation.format(one),
        of_one.format(one),
        of_relation.format(stranger),
    )


def roles(draw: Draw) -> list[tuple]:
    """Who did it to whom: kept or exchanged roles."""
    one, other, third = draw.some(PEOPLE, 3)
    verb, where = draw.one(REVERSIBLE), f"{draw.fill('[in|near|behind]')} the {draw.one(PLACES)}"
    asked = draw.one((f"who {past(verb)} the {one}", f"by whom was the {one} {participle(verb)}"))
    return paired(
        draw,
        asked,
        f"the {other} {past(verb)} the {one} {where}",
        f"the {one} {past(verb)} the {other} {where}",
        f"the {other} {past(verb)} the {third} {where}",
    )


def quantity(draw: Draw) -> list[tuple]:
    """How many: a number of the wrong thing is no answer."""
    city, kind = draw.one(CITIES), draw.one(("animal", "bird", "instrument", "vehicle"))
    one, other, third = (plural(word) for word in draw.some(KINDS[kind], 3))
    number, where = int(draw.rng.integers(12, 99)), f"in the {draw.one(PLACES)} of {city}"
    start = draw.fill("[there are|I counted|the guide says there are|you can see|they keep]")
    return paired(
        draw,
        f"how many {one} are there {where}",
        f"{start} {number} {one} and some {other} {where}",
        f"{start} {number} {other} and some {one} {where}",
        f"{start} {number} {other} and some {third} {where}",
    )


ANSWERS = (wh_word, agent, other_participant, roles, quantity)
