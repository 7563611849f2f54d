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
FIELDS = SINGULAR + tuple(tuple(map(plural, field)) for field in (PEOPLE, *KINDS.values()))
FIELD_OF = {word: field for field in FIELDS for word in field}


def near_miss(draw: Draw, text: str) -> str:
    """The text with one word exchanged; the text needs a word with a field."""
    words = text.split()
    return _exchanged(draw, words, [draw.one(_spots(words))])


def far_miss(draw: Draw, text: str) -> str:
    """The text with every word that has a field exchanged: the same construction about something else."""
    words = text.split()
    return _exchanged(draw, words, _spots(words))


def _spots(words: list[str]) -> list[int]:
    return [i for i, word in enumerate(words) if word.strip(",") in FIELD_OF]


def _exchanged(draw: Draw, words: list[str], spots: list[int]) -> str:
    """The words with new ones at the spots; none of the new ones is in the text already."""
    words, used = list(words), {word.strip(",") for word in words}
    for spot in spots:
        old = words[spot].strip(",")
        new = draw.one([word for word in FIELD_OF[old] if word not in used])
        used.add(new)
        words[spot] = words[spot].replace(old, new)
    return with_articles(" ".join(words))
