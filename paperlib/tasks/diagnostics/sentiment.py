"""Sentiment (SST-2): what turns the polarity of a word, in the spirit of the contrast sets of Gardner et al.
(2020) and CheckList.

Every family crosses praise and blame with a construction, so that each polar word is as often in positive
as in negative rows.
"""

from paperlib.tasks.diagnostics.drawing import Draw
from paperlib.tasks.diagnostics.english import sentence
from paperlib.tasks.diagnostics.lexicon import words

POSITIVE, NEGATIVE = "positive", "negative"
PRAISE = words(
    "brilliant charming clever delightful elegant exciting fascinating fresh funny gorgeous gripping "
    "honest inspiring intelligent lovely memorable moving original powerful remarkable satisfying "
    "stunning superb touching witty wonderful absorbing admirable captivating compelling coherent "
    "engaging graceful hilarious imaginative insightful lively masterful polished refreshing sincere "
    "skillful subtle tender thoughtful warm"
)
BLAME = words(
    "awful boring bland clumsy confusing dreadful dull empty flat foolish forgettable lazy lifeless "
    "messy mediocre painful pointless predictable ridiculous sloppy shallow stale stupid tedious "
    "terrible tiresome annoying artificial awkward banal chaotic cheesy contrived dreary exhausting "
    "forced hollow incoherent irritating lame monotonous pretentious repetitive silly superficial "
    "tasteless"
)
DENIALS = ("far from", "anything but", "not at all")
WORKS = words("film movie drama comedy thriller sequel documentary remake western cartoon romance musical")
PARTS = words("plot acting script dialogue soundtrack ending photography direction cast story music pacing")
VIEWERS = words("critics fans viewers reviewers audiences experts")


def both(frame: str, good: tuple, bad: tuple, flips: bool = False) -> list[tuple]:
    """The frame filled with praise and with blame; `flips` where the construction turns the polarity of
    the word.
    """
    labels = (NEGATIVE, POSITIVE) if flips else (POSITIVE, NEGATIVE)
    return [(sentence(frame.format(*good)), labels[0]), (sentence(frame.format(*bad)), labels[1])]


def polar(draw: Draw) -> tuple[str, str]:
    return draw.one(PRAISE), draw.one(BLAME)


def verdicts(draw: Draw) -> tuple[str, str]:
    """Something good and something bad to say after "is": a word, or the denial of an opposite one."""
    good, bad = polar(draw)
    if draw.maybe(0.6):
        good = f"{draw.one(DENIALS)} {draw.one(BLAME)}"
    if draw.maybe(0.6):
        bad = f"{draw.one(DENIALS)} {draw.one(PRAISE)}"
    return good, bad


def plain(draw: Draw) -> list[tuple]:
    """Two words of one polarity: what a bag of words can do."""
    (good, bad), (fine, poor) = polar(draw), polar(draw)
    work, part = draw.one(WORKS), draw.one(PARTS)
    frame = draw.fill(
        f"[the {part} is {{}} and the {work} is {{}}"
        f"|I found this {work} {{}} and its {part} {{}}|this {work} is {{}}, and the {part} is {{}} too]"
    )
    return both(frame, (good, fine), (bad, poor))


def negation(draw: Draw) -> list[tuple]:
    """Negation turns a judgement, near or far from the word (not a funny film; I doubt that anyone will
    find it funny).
    """
    good, bad = polar(draw)
    work = draw.one(WORKS)
    plain = draw.fill(
        f"[this {work} is|I find this {work}|the whole {work} feels|it is a {work} that is]"
        f" [truly|really|simply|quite] {{}}"
    )
    turned = draw.fill(
        f"[this {work} is never|nothing in this {work} is|I doubt that anyone will find this {work}"
        f"|I would not call this {work}|no scene of this {work} is|this {work} is anything but]"
        f" [truly|really|simply|quite] {{}}"
    )
    return both(plain, (good,), (bad,)) + both(turned, (good,), (bad,), flips=True)


def double_negation(draw: Draw) -> list[tuple]:
    """Two negations cancel out (never less than brilliant; hard to deny that it is dull)."""
    good, bad = polar(draw)
    work = draw.one(WORKS)
    twice = draw.fill(
        f"[nobody can deny that this {work} is"
        f"|it is not true that this {work} is not|this {work} never fails to be"
        f"|there is no scene in this {work} that is not] {{}}"
    )
    once = draw.fill(
        f"[nobody can claim that this {work} is"
        f"|it is not true that this {work} is|this {work} always fails to be"
        f"|there is no scene in this {work} that is] {{}}"
    )
    return both(twice, (good,), (bad,)) + both(once, (good,), (bad,), flips=True)


def contrast(draw: Draw) -> list[tuple]:
    """After "but", the second half is the verdict; both orders use the same words."""
    (good, bad), part = verdicts(draw), draw.one(PARTS)
    frame = draw.fill(
        f"the {part} is {{}}, [but in the end|but sadly or not,|yet all in all] the {draw.one(WORKS)} is {{}}"
    )
    return both(frame, (bad, good), (good, bad))


def concession(draw: Draw) -> list[tuple]:
    """The clause under "although" never is the verdict, wherever it stands (Socher et al. 2013 treat "X
    but Y"; this is its mirror).
    """
    good, bad = verdicts(draw)
    part, work = draw.one(PARTS), draw.one(WORKS)
    first = draw.fill(f"[although|even though|while] the {part} is {{}}, the {work} is {{}}")
    last = draw.fill(f"the {work} is {{}}, [although|even though|though] the {part} is {{}}")
    return both(first, (bad, good), (good, bad)) + both(last, (good, bad), (bad, good))


def excess(draw: Draw) -> list[tuple]:
    """What is too X to be Y is X and not Y."""
    good, bad = polar(draw)
    start = draw.fill(f"[this|the|that] {draw.one(WORKS)} is [far|much|simply|] too")
    return both(f"{start} {{}} to be {{}}", (good, bad), (bad, good))


def comparison(draw: Draw) -> list[tuple]:
    """More X than Y against less X than Y: same words, other verdict."""
    good, bad = polar(draw)
    start = draw.fill(f"[this|the|that] {draw.one(WORKS)} is [much|far|rather|a little]")
    return both(f"{start} more {{}} than {{}}", (good, bad), (bad, good)) + both(
        f"{start} less {{}} than {{}}", (bad, good), (good, bad)
    )


def hearsay(draw: Draw) -> list[tuple]:
    """Reported praise counts only when the writer agrees with it."""
    good, bad = verdicts(draw)
    start = draw.fill(f"{draw.one(VIEWERS)} [called|found|considered] the {draw.one(WORKS)} {{}}, and")
    return both(f"{start} {draw.fill('[they are right|I agree|rightly so]')}", (good,), (bad,)) + both(
        f"{start} {draw.fill('[they are wrong|I disagree|wrongly so]')}", (good,), (bad,), flips=True
    )


def expectation(draw: Draw) -> list[tuple]:
    """What was expected, promised or intended is not what was delivered."""
    (good, bad), subject = verdicts(draw), f"the {draw.one(PARTS)} of this {draw.one(WORKS)}"
    frame = draw.fill(
        f"[I expected {subject} to be {{}}, but it was"
        f"|{subject} was said to be {{}}, yet it proved"
        f"|{subject} was meant to be {{}}, but became"
        f"|{subject} looked {{}} in the trailer, but it is|{subject} should have been {{}}, yet it is] {{}}"
    )
    return both(frame, (bad, good), (good, bad))


def unreal(draw: Draw) -> list[tuple]:
    """A counterfactual denies what it says (it would have been funny with a better cast)."""
    good, bad = verdicts(draw)
    work, part = draw.one(WORKS), draw.one(PARTS)
    unreal_frame = draw.fill(f"[with|given] another {part}, this {work} would have been {{}}")
    real_frame = draw.fill(f"[with|thanks to|because of] its {part}, this {work} has become {{}}")
    return both(real_frame, (good,), (bad,)) + both(unreal_frame, (good,), (bad,), flips=True)


RULES = (
    plain,
    negation,
    double_negation,
    contrast,
    concession,
    excess,
    comparison,
    hearsay,
    expectation,
    unreal,
)
