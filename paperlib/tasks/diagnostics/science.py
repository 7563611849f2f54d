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
MATERIALS = tuple("copper wooden steel glass iron plastic silver rubber stone bronze wax ice aluminum concrete".split())
SOURCES = (
    "[scientists found that|the book says that|tests show that|we know that|most experts agree that"
    "|it is known that|students learn that] "
)


def judged(draw: Draw, premise: str, entailed: str, *open_: str) -> list[tuple]:
    """The entailed hypothesis, and one of those left open."""
    return [
        (sentence(premise), sentence(entailed), ENTAILS),
        (sentence(premise), sentence(draw.one(open_)), NEUTRAL),
    ]


def inheritance(draw: Draw) -> list[tuple]:
    """What holds of a class holds of its members; what holds of other classes need not."""
    (one, ones, deeds), (_, others, more), (_, _, most) = draw.some(CLASSES, 3)
    deed, other, third = (draw.one(does) for does in (deeds, more, most))
    rules = draw.some((f"{ones} {deed}", f"{others} {other}"), 2)
    what = draw.fill(f"the [sample|thing|object] from {draw.one(REGIONS)}")
    premise = f"{draw.fill(SOURCES)}{rules[0]} and that {rules[1]}, and {what} is {one}"
    start = f"{what} {draw.fill('[will|should|can be expected to|is likely to]')}"
    return judged(draw, premise, f"{start} {deed}", f"{start} {other}", f"{start} {third}")


def process(draw: Draw) -> list[tuple]:
    """Two verbs with their objects: kept, exchanged, or those of something else."""
    (agent, takes, one, gives, other), (_, uses, food, makes, product) = draw.some(PROCESSES, 2)
    where = f"in {draw.one(REGIONS)}"
    clauses = draw.some((f"{takes} {one}", f"{gives} {other}"), 2)
    kept, exchanged, foreign = draw.one(
        (
            (f"{gives} {other}", f"{gives} {one}", f"{makes} {product}"),
            (f"{takes} {one}", f"{takes} {other}", f"{uses} {food}"),
        )
    )
    premise = f"{draw.fill(SOURCES)}{agent} {' and '.join(clauses)}"
    return judged(draw, premise, *(f"{agent} {where} {does}" for does in (kept, exchanged, foreign)))


def causation(draw: Draw) -> list[tuple]:
    """A cause and its effect: in either order of mention, exchanged, or another effect."""
    (cause, effect), (third, further) = draw.some(CAUSES, 2)
    where = f"in {draw.one(REGIONS)}"
    remark = draw.fill(f"[but|while|and] {third} [is rare|is common|is normal|was studied less|matters too] there")
    link = draw.fill("[is a cause of|leads to|often causes|can result in]")
    claim = draw.one(
        (
            f"{{0}} can bring about {{1}} {where}",
            f"{{1}} {where} can come from {{0}}",
            f"{where}, one effect of {{0}} is {{1}}",
        )
    )
    return judged(
        draw,
        f"{draw.fill(SOURCES)}{where} {cause} {link} {effect}, {remark}",
        claim.format(cause, effect),
        claim.format(effect, cause),
        claim.format(third, effect),
        claim.format(cause, further),
        claim.format(cause, further),
    )


def scale(draw: Draw) -> list[tuple]:
    """Transitive comparison: the converse keeps the order; the reverse does not, and another scale is
    open.
    """
    one, two, three = (f"the {material} rod" for material in draw.some(MATERIALS, 3))
    scale_, others = draw.some(SCALES, 2)
    (more, less), (further, _) = draw.some(scale_, 2), others
    premise = f"in test {draw.one(NUMBERS)}, {one} was {more} than {two}, and {two} was {more} than {three}"
    high, low = draw.one(((one, two), (two, three), (one, three)))
    (top, word), (bottom, converse) = draw.some(((high, more), (low, less)), 2)
    claims = (f"{top} was {which} than {bottom}" for which in (word, converse, further))
    return judged(draw, premise, *claims)


def condition(draw: Draw) -> list[tuple]:
    """If the condition holds, the effect follows, and nothing else does."""
    when, then, also, other = draw.some(EVENTS, 4)
    rule = draw.fill(f"[if {when}, {then}|{then} whenever {when}], [and if|but if] {also}, {other}")
    test = f"in test {draw.one(NUMBERS)}"
    return judged(draw, f"{rule}; {test} {when}", f"{test} {then}", f"{test} {also}", f"{test} {other}")


def observation(draw: Draw) -> list[tuple]:
    """What is seen of a member is seen of its kind; not the other way round, nor of another kind."""
    kind, another = draw.some(("animal", "bird", "flower", "fruit", "vegetable"), 2)
    one, size = draw.one(KINDS[kind]), draw.fill("[rare|small|wild|red|young|strange|large]")
    seen = draw.fill("[was found|was studied|was raised|was kept in the dark|was weighed twice|was photographed]")
    seen = f"{seen} in {draw.one(REGIONS)}"
    narrow, wide, other = (f"{a(f'{size} {noun}')} {seen}" for noun in (one, kind, another))
    return [
        (sentence(narrow), sentence(wide), ENTAILS),
        draw.one(((sentence(wide), sentence(narrow), NEUTRAL), (sentence(narrow), sentence(other), NEUTRAL))),
    ]


RULES = (inheritance, process, causation, scale, condition, observation)
