"""Causes and effects (COPA): chains of three events, after Roemmele et al. (2011).

The middle event is asked for its cause or for its effect, and the first and the last are the choices: both
belong to the story, and only the question tells which is meant. The outer events are asked for the middle
one against the middle of another story.
"""

from paperlib.tasks.diagnostics.drawing import Draw
from paperlib.tasks.diagnostics.english import sentence
from paperlib.tasks.diagnostics.lexicon import NAMES, PEOPLE

# cause -> event -> effect; {who} is somebody.
CHAINS = (
    (
        "{who} stumbled on the [stairs|carpet|curb]",
        "{who} dropped the [glass|vase|mirror]",
        "there were splinters on the floor around {who}",
    ),
    (
        "the alarm clock of {who} was broken",
        "{who} overslept",
        "{who} was late for [work|school|the meeting]",
    ),
    (
        "{who} did not eat all day",
        "{who} became very hungry",
        "{who} ordered [a pizza|two burgers|a large meal]",
    ),
    (
        "it began to rain hard on {who}",
        "the clothes of {who} got wet",
        "{who} changed into a dry [shirt|sweater]",
    ),
    ("{who} studied hard for weeks", "{who} passed the [exam|test]", "{who} celebrated with friends"),
    (
        "a [nail|piece of glass] lay on the road before {who}",
        "the car of {who} had a flat tire",
        "{who} called a mechanic",
    ),
    (
        "a thief broke into the house of {who}",
        "the [jewels|paintings] of {who} were stolen",
        "{who} called the police",
    ),
    ("{who} stayed in the sun too long", "the skin of {who} turned red", "{who} put on a cooling cream"),
    ("the [soup|stew] was too hot for {who}", "{who} burned the tongue", "{who} drank cold water"),
    (
        "{who} forgot to pay the electricity bill",
        "the power went out at the home of {who}",
        "{who} lit some candles",
    ),
    ("{who} told a very funny joke", "everybody around {who} laughed", "{who} felt proud of the joke"),
    (
        "the brakes of {who}'s bicycle failed",
        "{who} crashed into a [wall|tree]",
        "{who} was taken to the hospital",
    ),
    (
        "{who} left the window open in [winter|the storm]",
        "the room of {who} got cold",
        "{who} turned on the heater",
    ),
    ("{who} worked in the garden all day", "{who} became very tired", "{who} went to bed early"),
    ("{who} insulted the boss", "{who} lost the job", "{who} could not pay the rent"),
    (
        "{who} found a lost [wallet|purse] and returned it",
        "{who} received a reward",
        "{who} bought a present with the money",
    ),
    ("a mosquito bit {who}", "the arm of {who} began to itch", "{who} scratched the arm"),
    (
        "{who} did not water the [flowers|roses]",
        "the flowers of {who} dried out",
        "{who} threw the dead flowers away",
    ),
    (
        "{who} left the [milk|meat] out of the fridge",
        "the food of {who} went bad",
        "{who} noticed a bad smell in the kitchen",
    ),
    ("{who} trained every morning", "{who} won the [race|contest]", "{who} was given a gold medal"),
    ("the battery of {who}'s phone was empty", "{who} could not call home", "the parents of {who} worried"),
    ("{who} ate too much [cake|candy]", "{who} had a stomach ache", "{who} took some medicine"),
    ("the dog saw a [cat|rabbit] near {who}", "the dog of {who} ran away", "{who} put up posters of the dog"),
    (
        "a baby cried all night next door to {who}",
        "{who} could not sleep",
        "{who} drank a lot of coffee in the morning",
    ),
    ("{who} drove too fast", "the police stopped {who}", "{who} had to pay a fine"),
    ("the sink of {who} was leaking", "the kitchen floor of {who} was flooded", "{who} mopped up the water"),
    (
        "the old shoes of {who} had holes",
        "{who} bought new shoes",
        "{who} got blisters from the stiff leather",
    ),
    ("a heavy storm came while {who} was sailing", "the boat of {who} sank", "{who} swam to the shore"),
    (
        "{who} read a [ghost|horror] story at night",
        "{who} became frightened",
        "{who} slept with the lights on",
    ),
    (
        "{who} walked through fresh paint",
        "the soles of {who} were green with paint",
        "{who} left green marks on the carpet",
    ),
    (
        "{who} moved to a foreign country",
        "{who} learned a new language",
        "{who} could talk to the neighbors there",
    ),
    (
        "{who} forgot the [pie|bread] in the oven",
        "the cake of {who} was burned black",
        "smoke filled the kitchen of {who}",
    ),
    (
        "the computer of {who} crashed",
        "{who} lost the [report|essay]",
        "{who} had to write the whole text again",
    ),
    ("{who} heard very sad news", "{who} began to cry", "a friend gave {who} a handkerchief"),
    ("the pen of {who} leaked", "there was ink on the shirt of {who}", "{who} took the shirt to the cleaner"),
    (
        "{who} had a bad toothache",
        "{who} went to the dentist",
        "the dentist filled a hole in the tooth of {who}",
    ),
    (
        "the elevator in the house of {who} was broken",
        "{who} climbed ten floors on foot",
        "{who} was out of breath",
    ),
    (
        "a snowstorm closed the airport",
        "the flight of {who} was canceled",
        "{who} spent the night in a hotel",
    ),
    ("{who} wanted to lose weight", "{who} stopped eating sweets", "the trousers of {who} became too wide"),
    ("{who} saved money for years", "{who} bought a [house|boat]", "{who} moved out of the rented flat"),
    ("a car splashed mud on {who}", "the coat of {who} was dirty", "{who} washed the coat"),
    (
        "{who} planted an apple tree long ago",
        "the tree of {who} bore many apples",
        "{who} baked apple pies for all the neighbors",
    ),
    (
        "{who} played loud music at midnight",
        "the neighbors complained about {who}",
        "{who} turned the music down",
    ),
    (
        "{who} touched a hot stove",
        "{who} got a blister on the finger",
        "{who} wrapped a bandage around the finger",
    ),
    ("{who} lied to a friend", "the friend no longer trusted {who}", "{who} felt lonely"),
    ("{who} wrote a very good novel", "{who} became famous", "strangers asked {who} for autographs"),
    (
        "the wind blew the hat of {who} away",
        "the hat of {who} landed in the river",
        "{who} had to fish the hat out of the water",
    ),
    (
        "{who} turned the key too hard",
        "the key of {who} broke in the lock",
        "{who} climbed in through the window",
    ),
)


def somebody(draw: Draw) -> str:
    return draw.one((draw.one(NAMES), f"the {draw.one(PEOPLE)}"))


def told(draw: Draw, chain: tuple[str, ...], who: str) -> list[str]:
    return [sentence(draw.fill(event, who=who)) for event in chain]


def choose(draw: Draw, premise: str, asked: str, right: str, wrong: str) -> tuple:
    choices = [right, wrong] if draw.maybe() else [wrong, right]
    return premise, *choices, asked, f"choice{choices.index(right) + 1}"


def cause_or_effect(draw: Draw) -> list[tuple]:
    """The middle of a chain: both choices fit the story, the question decides."""
    cause, event, effect = told(draw, draw.one(CHAINS), somebody(draw))
    return [choose(draw, event, "cause", cause, effect), choose(draw, event, "effect", effect, cause)]


def which_story(draw: Draw) -> list[tuple]:
    """The ends of a chain: the middle of this story against the middle of another."""
    who = somebody(draw)
    chain, other = (told(draw, chain, who) for chain in draw.some(CHAINS, 2))
    return [
        choose(draw, chain[0], "effect", chain[1], other[1]),
        choose(draw, chain[2], "cause", chain[1], other[1]),
    ]


RULES = (cause_or_effect, which_story)
