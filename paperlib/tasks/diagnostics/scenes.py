"""Scenes (SNLI, SICK): a caption mentions some attributes of a scene, the hypothesis names one of them.

What the caption mentions, it entails, also in wider words; what it leaves out stays open; another value of
what it mentions contradicts it. Every attribute takes all three parts, so that the hypothesis alone
decides nothing (against the annotation artifacts of Gururangan et al. 2018).
"""

from paperlib.tasks.diagnostics.drawing import Draw, Rule
from paperlib.tasks.diagnostics.english import a, gerund, participle, plural, sentence
from paperlib.tasks.diagnostics.lexicon import COLORS, KINDS, NUMBERS, PEOPLE, REVERSIBLE, TRAITS
from paperlib.tasks.diagnostics.lexicon import PLACES as BUILDINGS

ENTAILMENT, NEUTRAL, CONTRADICTION = "entailment", "neutral", "contradiction"

# attribute: pairs (in the caption, in wider words); values of one attribute exclude one another.
ACTIVITIES = (
    ("holding a kitten", "holding an animal"),
    ("playing the violin", "playing music"),
    ("cooking rice", "preparing food"),
    ("reading a novel", "reading a book"),
    ("eating an apple", "eating some fruit"),
    ("lifting weights", "doing a workout"),
    ("washing a dog", "cleaning an animal"),
    ("painting a portrait", "making art"),
    ("playing chess", "playing a game"),
    ("drinking tea", "having a drink"),
    ("sewing a button", "mending something"),
    ("carrying a rose", "holding a flower"),
    ("repairing a clock", "fixing a device"),
    ("dancing", "moving to music"),
    ("writing a letter", "writing something"),
    ("feeding a parrot", "giving food to a bird"),
    ("knitting a scarf", "making clothes"),
    ("singing a song", "using the voice"),
)
PLACES = (
    ("in a forest", "among trees"),
    ("on a beach", "near the water"),
    ("in a kitchen", "inside a house"),
    ("in a museum", "inside a building"),
    ("on a street", "outdoors"),
    ("in a bedroom", "indoors"),
    ("in a garden", "outside"),
    ("on a boat", "on the water"),
    ("in a church", "inside a building"),
    ("in a classroom", "at a school"),
)
COMPANY = (
    ("with a friend", "not alone"),
    ("alone", "without company"),
    ("with a crowd", "not alone"),
    ("with two children", "not alone"),
)
MOODS = (
    ("smiling", "looking happy"),
    ("crying", "looking sad"),
    ("yawning", "looking tired"),
    ("frowning", "looking angry"),
)
AGENTS = (("man", "person"), ("woman", "person"), ("boy", "child"), ("girl", "child"))
GARMENTS = tuple("shirt coat dress hat scarf jacket".split())


def captioned(draw: Draw, mentioned: dict[str, str]) -> str:
    """The caption: subject, activity, and whatever else is mentioned."""
    wearing = f" in {a(mentioned['garment'])}" if "garment" in mentioned else ""
    rest = [mentioned[name] for name in ("company", "place") if name in mentioned]
    mood = f"{mentioned['mood']} and " if "mood" in mentioned else ""
    return sentence(f"{a(mentioned['agent'])}{wearing} is {mood}{mentioned['activity']} {' '.join(rest)}")


def scene(draw: Draw) -> dict[str, tuple[str, str]]:
    garment = draw.one(GARMENTS)
    return {
        "agent": draw.one(AGENTS),
        "activity": draw.one(ACTIVITIES),
        "place": draw.one(PLACES),
        "company": draw.one(COMPANY),
        "mood": draw.one(MOODS),
        "garment": (f"{draw.one(COLORS)} {garment}", garment),
    }


def claim(who: str, attribute: str, value: str) -> str:
    """The hypothesis: one attribute of the described agent."""
    return sentence(f"the {who} is wearing {a(value)}" if attribute == "garment" else f"the {who} is {value}")


def changed(draw: Draw, attribute: str, value: tuple[str, str]) -> str:
    """Another value of the attribute, which the given one excludes."""
    if attribute == "garment":
        color, garment = value[0].split()
        return f"{draw.one([other for other in COLORS if other != color])} {garment}"
    options = {"place": PLACES, "company": COMPANY, "mood": MOODS}[attribute]
    return draw.one([other for other in options if other[1] != value[1]])[0]


def caption(draw: Draw) -> list[tuple]:
    """One caption, one attribute mentioned (entailed, or contradicted) and the same attribute left out
    (open).
    """
    facts = scene(draw)
    attribute, *others = draw.some(("place", "company", "mood", "garment"), 4)
    others = others[: 1 + draw.maybe()]
    agent = f"{facts['agent'][draw.maybe(0.4)]} who is {facts['activity'][0]}"
    full = captioned(draw, {name: facts[name][0] for name in ("agent", "activity", attribute, *others)})
    less = captioned(draw, {name: facts[name][0] for name in ("agent", "activity", *others)})
    return [
        (full, claim(agent, attribute, facts[attribute][draw.maybe(0.6)]), ENTAILMENT),
        (less, claim(agent, attribute, facts[attribute][draw.maybe(0.6)]), NEUTRAL),
        (full, claim(agent, attribute, changed(draw, attribute, facts[attribute])), CONTRADICTION),
    ]


def activity(draw: Draw) -> list[tuple]:
    """The activity in wider words (entailed), another activity (contradicted), a narrower guess (open)."""
    facts = scene(draw)
    narrow, wide = facts["activity"]
    false = draw.one([other for other in ACTIVITIES if other[1] != wide])
    extra = ("garment", draw.one(("place", "company", "mood")))
    agent, person = (f"{who} in the {facts['garment'][0]}" for who in facts["agent"])
    full = captioned(draw, {name: facts[name][0] for name in ("agent", "activity", *extra)})
    vague = captioned(draw, {"agent": facts["agent"][0], "activity": wide, **{name: facts[name][0] for name in extra}})
    return [
        (full, claim(person, "activity", wide), ENTAILMENT),
        (vague, claim(agent, "activity", narrow), NEUTRAL),
        (full, claim(agent, "activity", draw.one(false)), CONTRADICTION),
    ]


def two_agents(draw: Draw) -> list[tuple]:
    """Two people, two activities, one mood: who does what, and who feels what (open for the other one)."""
    one, other = draw.some(draw.one((("man", "woman"), ("boy", "girl"))), 2)
    garments, colors = draw.some(GARMENTS, 2), draw.some(COLORS, 2)
    one, other = (f"{who} in the {colors.pop()} {garments.pop()}" for who in (one, other))
    (mine, yours), mood = draw.some(ACTIVITIES, 2), draw.one(MOODS)
    halves = draw.some((f"the {one} is {mood[0]} and {mine[0]}", f"the {other} is {yours[0]}"), 2)
    premise = sentence(f"{draw.one(PLACES)[0]}, {' while '.join(halves)}")
    true = draw.one(((one, mine), (one, mood), (other, yours)))
    false = draw.one(((one, yours), (other, mine)))
    return [
        (premise, claim(true[0], "activity", draw.one(true[1])), ENTAILMENT),
        (premise, claim(other, "mood", draw.one(draw.one(MOODS))), NEUTRAL),
        draw.one(
            (
                (premise, claim(false[0], "activity", draw.one(false[1])), CONTRADICTION),
                (premise, claim(one, "mood", changed(draw, "mood", mood)), CONTRADICTION),
            )
        ),
    ]


SNLI: tuple[Rule, ...] = (caption, activity, caption, two_agents)


# SICK: short sentences from fixed expansions of a seed sentence (Marelli et al. 2014).
MOTIONS = (
    ("chasing", "following"),
    ("watching", "looking at"),
    ("feeding", "giving food to"),
    ("washing", "cleaning"),
    ("carrying", "holding"),
    ("kicking", "hitting"),
    ("hiding", "concealing"),
    ("grabbing", "seizing"),
)


def sick_voice(draw: Draw) -> list[tuple]:
    """Passive (entailed), roles exchanged (open), denial (contradicted)."""
    one, other = draw.some(PEOPLE[:16], 2)
    verb = draw.one(REVERSIBLE)
    trait = draw.one(TRAITS)
    forms = {True: "is being", False: "is not being"}
    done = draw.maybe(0.7)
    active = sentence(f"the {trait} {one} {forms[done].replace(' being', '')} {gerund(verb)} the {other}")
    passive = "the {} {} {} by the {}".format
    return [
        (active, sentence(passive(other, forms[done], participle(verb), f"{trait} {one}")), ENTAILMENT),
        (active, sentence(passive(f"{trait} {one}", forms[done], participle(verb), other)), NEUTRAL),
        (
            active,
            sentence(passive(other, forms[not done], participle(verb), f"{trait} {one}")),
            CONTRADICTION,
        ),
    ]


def sick_words(draw: Draw) -> list[tuple]:
    """A verb or a noun replaced by a synonym or hypernym (entailed), by a hyponym (open), the sentence
    denied (contradicted).
    """
    kind, doing, place = draw.one(("animal", "bird")), draw.one(MOTIONS), draw.one(PLACES)[0]
    narrow, color = (
        draw.one(KINDS[kind]),
        draw.one(("black", "white", "brown", "gray", "big", "small", "young", "old")),
    )
    who = draw.fill("[a man|a woman|a boy|a girl|one person|some kid]")
    low, high = f"{a(f'{color} {narrow}')} {place}", f"{a(f'{color} {kind}')} {place}"
    is_, is_not = f"{who} is", f"{who} is not"
    true, false = draw.one(((is_, is_not), (is_not, is_)))
    small, large = (low, high) if true == is_ else (high, low)  # a denial turns the direction of entailment
    return [
        (
            sentence(f"{true} {doing[0]} {small}"),
            sentence(f"{true} {doing[draw.maybe()]} {large}"),
            ENTAILMENT,
        ),
        (sentence(f"{true} {doing[0]} {large}"), sentence(f"{true} {doing[draw.maybe()]} {small}"), NEUTRAL),
        (
            sentence(f"{true} {doing[0]} {small}"),
            sentence(f"{false} {doing[draw.maybe()]} {small}"),
            CONTRADICTION,
        ),
    ]


def sick_numbers(draw: Draw) -> list[tuple]:
    """Fewer is entailed, more is open, none is contradicted."""
    few, many = (NUMBERS[i] for i in sorted(draw.some(range(len(NUMBERS)), 2)))
    kind = draw.one(("animal", "bird", "vehicle", "instrument"))
    narrow = plural(draw.one(KINDS[kind]))
    seen = draw.fill(f"can be [seen|heard|found] [near|behind|in|outside] the {draw.one(BUILDINGS)}")
    either = (narrow, plural(kind))
    more, fewer = sentence(f"{many} {narrow} {seen}"), sentence(f"{few} {narrow} {seen}")
    return [
        (more, sentence(f"at least {few} {draw.one(either)} {seen}"), ENTAILMENT),
        (fewer, sentence(f"at least {many} {draw.one(either)} {seen}"), NEUTRAL),
        draw.one(
            (
                (fewer, sentence(f"no {draw.one(either)} {seen}"), CONTRADICTION),
                (sentence(f"no {plural(kind)} {seen}"), fewer, CONTRADICTION),
            )
        ),
    ]


SICK: tuple[Rule, ...] = (sick_voice, sick_words, sick_numbers, two_agents)
