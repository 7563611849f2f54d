"""Semantic fields: a near miss exchanges one word of a sentence for another of its field, a far miss
exchanges them all.
"""

from paperlib.tasks.diagnostics.drawing import Draw
from paperlib.tasks.diagnostics.english import plural, with_articles
from paperlib.tasks.diagnostics.lexicon import (
    CITIES,
    COLORS,
    DAYS,
    FOODS,
    KINDS,
    MEN,
    MONTHS,
    NUMBERS,
    PEOPLE,
    PLACES,
    SKILLS,
    SUBJECTS,
    TRAITS,
    UNITS,
    WOMEN,
)

SINGULAR = (
    WOMEN,
    MEN,
    CITIES,
    COLORS,
    DAYS,
    MONTHS,
    NUMBERS,
    PEOPLE,
    TRAITS,
    PLACES,
    SKILLS,
    FOODS,
    SUBJECTS,
    UNITS,
    *KINDS.values(),
)
FIELDS = SINGULAR + tuple(tuple(map(plural, words)) for words in (PEOPLE, *KINDS.values()))
FIELD_OF = {word: field for field in FIELDS for word in field}


def near_miss(draw: Draw, text: str) -> str:
    """The text with one word exchanged; the text needs a word with a field."""
    words = text.split()
    spot = draw.one(_spots(words))
    return with_articles(
        " ".join(_exchanged(draw, word) if i == spot else word for i, word in enumerate(words))
    )


def far_miss(draw: Draw, text: str) -> str:
    """The text with every word that has a field exchanged: the same construction about something else."""
    words = text.split()
    spots = _spots(words)
    return with_articles(
        " ".join(_exchanged(draw, word) if i in spots else word for i, word in enumerate(words))
    )


def _spots(words: list[str]) -> list[int]:
    return [i for i, word in enumerate(words) if word.strip(",") in FIELD_OF]


def _exchanged(draw: Draw, word: str) -> str:
    bare = word.strip(",")
    return word.replace(bare, draw.one([other for other in FIELD_OF[bare] if other != bare]))
