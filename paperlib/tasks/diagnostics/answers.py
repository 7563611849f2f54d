"""Questions with and without their answer (QNLI, after SQuAD): the sentence tells of the asked event but
answers another question, or it answers the same question about something else.
"""

from paperlib.tasks.diagnostics.drawing import Draw
from paperlib.tasks.diagnostics.english import a, participle, past, plural, question, sentence
from paperlib.tasks.diagnostics.lexicon import (
    CITIES,
    DAYS,
    KINDS,
    MONTHS,
    NAMES,
    PEOPLE,
    PLACES,
    REVERSIBLE,
)

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
        "why": draw.fill("[for money|to please the king|out of love|for the children|to win a bet|because of a war]"),
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
        return paired(draw, asked.format(one), of_one.format(one), of_relation.format(one), of_one.format(stranger))
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


RULES = (wh_word, agent, other_participant, roles, quantity)
