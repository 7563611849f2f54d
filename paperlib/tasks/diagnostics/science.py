"""School science (SciTail): facts, their rewordings and their reversals, after Khot et al. (2018).

Two labels: the premise entails the hypothesis, or it leaves it open.
"""

from paperlib.tasks.diagnostics.drawing import Draw
from paperlib.tasks.diagnostics.english import a, sentence
from paperlib.tasks.diagnostics.lexicon import KINDS, NUMBERS, REGIONS

ENTAILS, NEUTRAL = "entails", "neutral"

# class, singular and plural, and what its members do
CLASSES = (
    ("a metal", "metals", ("conduct electricity", "shine when polished", "bend under force")),
    ("a gas", "gases", ("fill the whole container", "expand when heated", "rise in the tube")),
    ("a mammal", "mammals", ("feed milk to the young", "have warm blood", "have hair")),
    ("an insect", "insects", ("have six legs", "have a hard shell", "have two antennae")),
    ("a reptile", "reptiles", ("have cold blood", "have dry scales", "rest in the sun")),
    ("a bird", "birds", ("grow feathers", "have hollow bones", "build a nest")),
    ("an acid", "acids", ("taste sour", "dissolve chalk", "turn the paper red")),
    ("a plant", "plants", ("grow toward the light", "take in carbon dioxide", "have green cells")),
    ("a fish", "fish", ("breathe with gills", "swim with fins", "live under water")),
    ("a liquid", "liquids", ("flow through the pipe", "take the shape of the bottle", "form drops")),
)
# agent, what it takes or acts on, what comes out
PROCESSES = (
    ("plants", "take in", "carbon dioxide", "release", "oxygen"),
    ("animals", "take in", "oxygen", "release", "carbon dioxide"),
    ("engines", "burn", "fuel", "produce", "heat"),
    ("volcanoes", "melt", "rock", "release", "ash"),
    ("bees", "collect", "nectar", "make", "honey"),
    ("cows", "eat", "grass", "give", "milk"),
    ("rivers", "carry", "sand", "form", "deltas"),
    ("muscles", "use", "sugar", "produce", "motion"),
    ("bulbs", "use", "electricity", "produce", "light"),
    ("yeast cells", "consume", "sugar", "release", "alcohol"),
    ("glaciers", "grind", "rock", "form", "valleys"),
    ("lungs", "absorb", "oxygen", "remove", "waste gas"),
    ("fires", "consume", "wood", "produce", "smoke"),
    ("magnets", "attract", "iron", "create", "a magnetic field"),
    ("batteries", "store", "chemical energy", "supply", "electricity"),
    ("roots", "absorb", "water", "store", "starch"),
)
CAUSES = (
    ("heat", "melting of ice"),
    ("friction", "heat"),
    ("pollution", "acid rain"),
    ("gravity", "tides"),
    ("erosion", "landslides"),
    ("poor hygiene", "infections"),
    ("sunlight", "evaporation"),
    ("seabed motion", "large waves"),
    ("rust", "damage to bridges"),
    ("smoking", "lung disease"),
    ("drought", "crop failure"),
    ("warm water", "strong storms"),
    ("noise", "hearing loss"),
    ("overfishing", "loss of species"),
    ("moisture", "mold"),
    ("wind", "ocean waves"),
)
SCALES = (
    ("harder", "softer"),
    ("heavier", "lighter"),
    ("hotter", "colder"),
    ("brighter", "darker"),
    ("stronger", "weaker"),
    ("rougher", "smoother"),
    ("longer", "shorter"),
    ("thicker", "thinner"),
)
EVENTS = tuple(
    "the water boils|the ice melts|the gas expands|the metal bends|the lamp glows|the plant grows"
    "|the rock cracks|the liquid cools|the air warms|the pressure rises|the solution turns red"
    "|the magnet moves|the crystal forms|the seed opens".split("|")
)
MATERIALS = tuple(
    "copper wooden steel glass iron plastic silver rubber stone bronze wax ice aluminum concrete".split()
)
SOURCES = (
    "[scientists found that|the book says that|tests show that|we know that|most experts agree that"
    "|it is known that|students learn that] "
)


def judged(entailing: tuple[str, str], open_: tuple[str, str]) -> list[tuple]:
    return [
        (sentence(entailing[0]), sentence(entailing[1]), ENTAILS),
        (sentence(open_[0]), sentence(open_[1]), NEUTRAL),
    ]


def inheritance(draw: Draw) -> list[tuple]:
    """What holds of a class holds of its members; what holds of another class need not."""
    (one, ones, deeds), (_, others, more) = draw.some(CLASSES, 2)
    deed, other = draw.one(deeds), draw.one(more)
    rules = draw.some((f"{ones} {deed}", f"{others} {other}"), 2)
    what = draw.fill(f"the [sample|thing|object] from {draw.one(REGIONS)}")
    premise = f"{draw.fill(SOURCES)}{rules[0]} and that {rules[1]}, and {what} is {one}"
    will = draw.fill("[will|should|can be expected to|is likely to]")
    return judged((premise, f"{what} {will} {deed}"), (premise, f"{what} {will} {other}"))


def process(draw: Draw) -> list[tuple]:
    """Two verbs with their objects, kept or exchanged."""
    agent, takes, one, gives, other = draw.one(PROCESSES)
    source, where = draw.fill(SOURCES), f"in {draw.one(REGIONS)}"
    premise = draw.one(
        (
            f"{source}{agent} {takes} {one} and {gives} {other}",
            f"{source}{agent} {gives} {other} and {takes} {one}",
        )
    )
    kept, exchanged = draw.one(
        (
            (f"{agent} {where} {gives} {other}", f"{agent} {where} {gives} {one}"),
            (f"{agent} {where} {takes} {one}", f"{agent} {where} {takes} {other}"),
        )
    )
    return judged((premise, kept), (premise, exchanged))


def causation(draw: Draw) -> list[tuple]:
    """A cause and its effect, in either order of mention, or exchanged."""
    (cause, effect), (third, _) = draw.some(CAUSES, 2)
    source, where = draw.fill(SOURCES), f"in {draw.one(REGIONS)}"
    remark = draw.fill(f"{third} [is rare|is common|is normal|was studied less|matters too] there")
    premise = draw.fill(
        f"{source}{where} {cause} [is a cause of|leads to|often causes|can result in] {effect}, "
        f"[but|while|and] {remark}"
    )
    claim = draw.one(
        (
            "{0} can bring about {1} " + where,
            "{1} " + where + " can come from {0}",
            where + ", one effect of {0} is {1}",
        )
    )
    return judged(
        (premise, claim.format(cause, effect)),
        (premise, claim.format(*draw.one(((effect, cause), (third, effect))))),
    )


def scale(draw: Draw) -> list[tuple]:
    """Transitive comparison; the converse keeps the order, the reverse does not."""
    one, two, three = (f"the {material} rod" for material in draw.some(MATERIALS, 3))
    more, less = draw.some(draw.one(SCALES), 2)
    premise = f"in test {draw.one(NUMBERS)}, {one} was {more} than {two}, and {two} was {more} than {three}"
    high, low = draw.one(((one, two), (two, three), (one, three)))
    (top, word), (bottom, converse) = draw.some(((high, more), (low, less)), 2)
    return judged(
        (premise, f"{top} was {word} than {bottom}"), (premise, f"{top} was {converse} than {bottom}")
    )


def condition(draw: Draw) -> list[tuple]:
    """If the condition holds, the effect follows; if the effect is seen, the condition need not hold
    (affirming the consequent).
    """
    when, then = draw.some(EVENTS, 2)
    test = f"in test {draw.one(NUMBERS)}"
    rule = draw.fill(f"[if {when}, {then}|{then} whenever {when}]")
    return judged(
        (f"{rule}, and {test} {when}", f"{test} {then}"), (f"{rule}, and {test} {then}", f"{test} {when}")
    )


def observation(draw: Draw) -> list[tuple]:
    """What is seen of a member is seen of its kind, not the other way round."""
    kind = draw.one(("animal", "bird", "flower", "fruit", "vegetable"))
    one = draw.one(KINDS[kind])
    seen = (
        draw.fill(
            "[was found|was studied|was raised|was kept in the dark|was weighed twice|was photographed]"
        )
        + f" in {draw.one(REGIONS)}"
    )
    size = draw.fill("[rare|small|wild|red|young|strange|large]")
    low, high = f"{a(f'{size} {one}')} {seen}", f"{a(f'{size} {kind}')} {seen}"
    return judged((low, high), (high, low))


RULES = (inheritance, process, causation, scale, condition, observation)
