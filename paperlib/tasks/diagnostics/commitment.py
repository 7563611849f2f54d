"""Commitment (CB): is the writer committed to the clause embedded under a verb? After the CommitmentBank (de
Marneffe et al. 2019).

A family embeds one clause, or two, under verbs of different commitment; the hypotheses are the clauses,
plain or denied.
"""

from paperlib.tasks.diagnostics.drawing import Draw
from paperlib.tasks.diagnostics.english import sentence
from paperlib.tasks.diagnostics.lexicon import CITIES, MEN, NAMES, PLACES, WOMEN

ENTAILMENT, CONTRADICTION, NEUTRAL = "entailment", "contradiction", "neutral"

# A clause as (subject, plain verb phrase, denied verb phrase).
CLAUSES = (
    ("the {place} in {city}", "was closed", "was not closed"),
    ("the train to {city}", "had left", "had not left"),
    ("the money of {name}", "was gone", "was not gone"),
    ("the {place} in {city}", "had burned down", "had not burned down"),
    ("the letter to {name}", "had arrived", "had not arrived"),
    ("the meeting with {name}", "was over", "was not over"),
    ("the road to {city}", "was safe", "was not safe"),
    ("the guest from {city}", "had lied", "had not lied"),
    ("the dog of {name}", "was sick", "was not sick"),
    ("the bridge near the {place}", "was open", "was not open"),
    ("the door of the {place}", "was locked", "was not locked"),
    ("the bill for {name}", "had been paid", "had not been paid"),
    ("the boss of {name}", "was angry", "was not angry"),
    ("the war near {city}", "had ended", "had not ended"),
    ("the river at {city}", "had risen", "had not risen"),
    ("the clerk at the {place}", "was asleep", "was not asleep"),
)
FACTIVE = tuple(
    "knew|realized|noticed|discovered|was glad|regretted|did not know|never realized|had forgotten|was surprised".split(
        "|"
    )
)
OPEN = tuple("thought|believed|hoped|said|did not think|suspected|doubted|feared|claimed|was not sure".split("|"))
COUNTERFACTUAL = tuple(
    "pretended|falsely claimed|wrongly believed|lied|imagined wrongly"
    "|was mistaken in thinking|only dreamed|wished".split("|")
)


def clause(draw: Draw) -> tuple[str, str]:
    """A clause and its denial, in random order."""
    subject, plain, denied = draw.one(CLAUSES)
    subject = subject.format(place=draw.one(PLACES), city=draw.one(CITIES), name=draw.one(NAMES))
    one, other = draw.some((plain, denied), 2)
    return f"{subject} {one}", f"{subject} {other}"


def one_clause(draw: Draw) -> list[tuple]:
    """One clause under a factive, an opinion and an error; a hypothesis that denies it turns the outer
    two.
    """
    said, denied = clause(draw)
    who, start = draw.one(NAMES), draw.fill("[last week|at first|in the end|back then|by Monday|that night]")
    known, thought, false = (
        sentence(f"{start}, {who} {draw.one(verbs)} that {said}") for verbs in (FACTIVE, OPEN, COUNTERFACTUAL)
    )
    if draw.maybe(0.7):
        labels = ((known, ENTAILMENT), (thought, NEUTRAL), (false, CONTRADICTION))
        return [(premise, sentence(said), label) for premise, label in labels]
    labels = ((known, CONTRADICTION), (thought, NEUTRAL), (false, ENTAILMENT))
    return [(premise, sentence(denied), label) for premise, label in labels]


def two_clauses(draw: Draw) -> tuple[tuple[str, str], tuple[str, str]]:
    one, other = clause(draw), clause(draw)
    while other[0].split()[1] == one[0].split()[1]:
        other = clause(draw)
    return one, other


def report(draw: Draw, known: str, verb: str, other: str, other_verb: str) -> str:
    """One premise that embeds both clauses, in either order."""
    woman, man = draw.some((draw.one(WOMEN), draw.one(MEN)), 2)
    halves = draw.some((f"{woman} {verb} that {known}", f"{man} {other_verb} that {other}"), 2)
    return sentence(f"{halves[0]}{draw.fill('[, and|, but|, while]')} {halves[1]}")


def facts_and_opinions(draw: Draw) -> list[tuple]:
    """A factive commits the writer, also under negation; an opinion does not (Kiparsky and Kiparsky 1970)."""
    (known, denied), (thought, unthought) = two_clauses(draw)
    premise = report(draw, known, draw.one(FACTIVE), thought, draw.one(OPEN))
    return [
        (premise, sentence(known), ENTAILMENT),
        (premise, sentence(draw.one((thought, unthought))), NEUTRAL),
        (premise, sentence(denied), CONTRADICTION),
    ]


def facts_and_errors(draw: Draw) -> list[tuple]:
    """A verb of error commits the writer to the opposite."""
    (known, denied), (false, true) = two_clauses(draw)
    premise = report(draw, known, draw.one(FACTIVE), false, draw.one(COUNTERFACTUAL))
    return (
        [(premise, sentence(known), ENTAILMENT), (premise, sentence(false), CONTRADICTION)]
        if draw.maybe()
        else [(premise, sentence(true), ENTAILMENT), (premise, sentence(denied), CONTRADICTION)]
    )


def errors_and_opinions(draw: Draw) -> list[tuple]:
    """The opposite of an error holds; an opinion beside it stays open."""
    (false, true), (thought, unthought) = two_clauses(draw)
    premise = report(draw, false, draw.one(COUNTERFACTUAL), thought, draw.one(OPEN))
    return [
        (premise, sentence(true), ENTAILMENT),
        (premise, sentence(draw.one((thought, unthought))), NEUTRAL),
        (premise, sentence(false), CONTRADICTION),
    ]


RULES = (one_clause, facts_and_opinions, one_clause, errors_and_opinions, one_clause, facts_and_errors)
