"""Reading short passages: yes or no (BoolQ), and which answers (MultiRC).

The passages are generated worlds of one to three people, in the spirit of bAbI (Weston et al. 2015): each
tells more than is asked, and a wrong answer is the right one for somebody else, or for nobody.
"""

from paperlib.tasks.diagnostics.drawing import Draw
from paperlib.tasks.diagnostics.english import a, passage, question
from paperlib.tasks.diagnostics.lexicon import (
    CITIES,
    DAYS,
    KINDS,
    MEN,
    NAMES,
    PEOPLE,
    WOMEN,
    words,
)

SPORTS = words("tennis golf hockey chess soccer cricket")
GOODS = sum((KINDS[kind] for kind in ("instrument", "garment", "fruit", "tool")), ())
SHOPS = words("bakery bank library museum theater zoo market pharmacy cinema gallery")

# topic: (how it is told of {who}, how it is asked of {who}, the values)
TOPICS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("{who} lives in {value}", "does {who} live in {value}", CITIES),
    ("{who} works as a {value}", "is {who} a {value}", tuple(job for job in PEOPLE if job[0] not in "aeiou")),
    ("{who} plays the {value}", "can {who} play the {value}", KINDS["instrument"]),
    ("{who} is fond of {value}", "does {who} like {value}", SPORTS),
    (
        "{who} owns a {value}",
        "does a {value} belong to {who}",
        ("dog", "cat", "horse", "goat", "rabbit", "pig"),
    ),
    (
        "{who} was born in {value}",
        "is {value} the month when {who} was born",
        ("January", "March", "April", "June", "July", "October"),
    ),
    ("{who} drives a {value}", "does {who} have a {value}", KINDS["vehicle"]),
)


def couple(draw: Draw) -> tuple[tuple[str, str], tuple[str, str]]:
    """A woman and a man with their pronouns, in random order."""
    one, other = draw.some(((draw.one(WOMEN), "she"), (draw.one(MEN), "he")), 2)
    return one, other


def one_or_two(draw: Draw) -> list[tuple]:
    """Two people, two topics: the asked value is stated of the asked person, of the other one, or of
    nobody.
    """
    (one, pronoun), (other, other_pronoun) = couple(draw)
    (tell, ask, values), (more, _, further) = draw.some(TOPICS, 2)
    (mine, yours, nobodys), (also, too) = draw.some(values, 3), draw.some(further, 2)
    told = passage(
        tell.format(who=one, value=mine),
        more.format(who=pronoun, value=also),
        tell.format(who=other, value=yours),
        more.format(who=other_pronoun, value=too),
    )
    who, right, wrong = draw.one(((one, mine, yours), (other, yours, mine)))
    return [
        (question(ask.format(who=who, value=right)), told, "true"),
        (question(ask.format(who=who, value=draw.one((wrong, nobodys, nobodys)))), told, "false"),
    ]


def one_person(draw: Draw) -> list[tuple]:
    """One person, three topics: the asked value is the stated one or another."""
    who, pronoun = couple(draw)[0]
    topics = draw.some(TOPICS, 3)
    facts = [(topic, *draw.some(topic[2], 2)) for topic in topics]
    told = passage(
        *(tell.format(who=pronoun if i else who, value=value) for i, ((tell, _, _), value, _) in enumerate(facts))
    )
    (_, ask, _), right, wrong = draw.one(facts)
    return [
        (question(ask.format(who=who, value=right)), told, "true"),
        (question(ask.format(who=who, value=wrong)), told, "false"),
    ]


def except_one(draw: Draw) -> list[tuple]:
    """What holds of all but one (exceptives)."""
    (one, other), day = draw.some(SHOPS, 2), draw.one(DAYS)
    city = draw.one(CITIES)
    open_, closed = draw.some(("open", "closed"), 2)
    told = passage(
        f"everything in {city} is {open_} on {day}, except the {one}",
        f"the {draw.fill('[mayor|council|owner|union]')} wanted it so",
        f"visitors still come to see the {other}",
    )
    rows = [(one, closed, "true"), (one, open_, "false"), (other, open_, "true"), (other, closed, "false")]
    true, false = draw.one((rows[0], rows[2])), draw.one((rows[1], rows[3]))
    return [
        (question(f"is the {shop} in {city} {state} on {day}"), told, label) for shop, state, label in (true, false)
    ]


def change(draw: Draw) -> list[tuple]:
    """What was, and what is (state change)."""
    who, (here, there) = draw.one(NAMES), draw.some(CITIES, 2)
    month = draw.fill("[last year|in May|two years ago|after the war|in spring]")
    told = passage(
        f"{who} used to live in {here}",
        draw.fill(f"{month} {who} moved to {there} to work as a [nurse|baker|guard|waiter|driver]"),
        draw.fill(f"{who} [often|sometimes|never] [writes|talks|thinks] about [the old days|those years|the past]"),
    )
    now, before = f"does {who} live in {{}} now", f"did {who} live in {{}} before"
    right, wrong = draw.one(((now.format(there), now.format(here)), (before.format(here), before.format(there))))
    return [(question(right), told, "true"), (question(wrong), told, "false")]


YES_NO = (one_or_two, one_person, except_one, one_or_two, one_person, change)


# MultiRC: topic: (how it is told, how it is asked; the answer is the name)
DUTIES = (
    (
        "brought {value}",
        "who brought {value}",
        ("the cake", "the wine", "some flowers", "a guitar", "two chairs", "the bread"),
    ),
    (
        "cleaned {value}",
        "who cleaned {value}",
        ("the kitchen", "the windows", "the garage", "the car", "the stairs", "the oven"),
    ),
    (
        "paid for {value}",
        "who paid for {value}",
        ("the taxi", "the tickets", "the dinner", "the hotel", "the repair", "the music"),
    ),
    (
        "forgot {value}",
        "who forgot {value}",
        ("the keys", "the map", "the passport", "the umbrella", "the camera", "the phone"),
    ),
    (
        "visited {value}",
        "who went to see {value}",
        ("the castle", "the museum", "the zoo", "the old church", "the harbor", "the market"),
    ),
)
OCCASIONS = "[the party|the trip|the wedding|the picnic|the school feast|the journey|the holiday] in {city}"


def offered(told: str, asked: str, right: tuple[str, ...], wrong: tuple[str, ...]) -> list[tuple]:
    """One row per answer, in alphabetical order."""
    return [
        (told, question(asked), answer, "true" if answer in right else "false") for answer in sorted((*right, *wrong))
    ]


def who_did(draw: Draw) -> list[tuple]:
    """Who did the asked thing: two people; not a third one who did the like, not a stranger, and neither a
    day nor a thing.
    """
    one, two, three, stranger = draw.some(NAMES, 4)
    tell, ask, values = draw.one(DUTIES)
    (mine, yours), day = draw.some(values, 2), draw.one(DAYS)
    occasion = draw.fill(OCCASIONS, city=draw.one(CITIES))
    deeds = (f"{one} and {two} {tell.format(value=mine)}", f"{three} {tell.format(value=yours)}")
    told = passage(f"{occasion} began on {day}", *draw.some(deeds, 2))
    wrong = (draw.one((three, stranger)), draw.one((day, yours)))
    return offered(told, f"{ask.format(value=mine)} for {occasion}", (one, two), wrong)


def shopping(draw: Draw) -> list[tuple]:
    """What somebody bought: two things; not what somebody else bought, and not what nobody bought."""
    (one, other), city = draw.some(NAMES, 2), draw.one(CITIES)
    mine, also, yours, nobodys = map(a, draw.some(GOODS, 4))
    told = passage(f"in {city}, {one} bought {mine} and {also}", f"{other} bought {yours}")
    asked = draw.fill(f"[what did {one} buy in {city}|what did {one} bring home from {city}]")
    return offered(told, asked, (mine, also), (draw.one((yours, nobodys)), draw.one((other, city))))


def what_is_said(draw: Draw) -> list[tuple]:
    """Two people, two facts each: those of the asked one; not one of the other, or one of nobody, and
    nothing of another topic.
    """
    (one, pronoun), (other, other_pronoun) = couple(draw)
    (tell, _, values), (more, _, further), (*_, beside) = draw.some(TOPICS, 3)
    (mine, yours, nobodys), (also, too) = draw.some(values, 3), draw.some(further, 2)
    told = passage(
        tell.format(who=one, value=mine),
        more.format(who=pronoun, value=also),
        tell.format(who=other, value=yours),
        more.format(who=other_pronoun, value=too),
    )
    asked, rest, right, theirs = draw.one(((one, other, (mine, also), yours), (other, one, (yours, too), mine)))
    return offered(
        told,
        draw.fill(f"[what does the text say about {asked} but not about|what is true of {asked} but not of] {rest}"),
        right,
        (draw.one((theirs, nobodys)), draw.one(beside)),
    )


SEVERAL_ANSWERS = (who_did, what_is_said, shopping)
