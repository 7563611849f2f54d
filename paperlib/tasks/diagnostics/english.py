"""Just enough English morphology for the grammars: plurals, verb forms, articles, sentences."""

import re

PLURALS = {"scarf": "scarves"}

# base: (past, past participle)
IRREGULAR = {
    "bite": ("bit", "bitten"),
    "break": ("broke", "broken"),
    "bring": ("brought", "brought"),
    "buy": ("bought", "bought"),
    "choose": ("chose", "chosen"),
    "draw": ("drew", "drawn"),
    "drive": ("drove", "driven"),
    "eat": ("ate", "eaten"),
    "fall": ("fell", "fallen"),
    "find": ("found", "found"),
    "give": ("gave", "given"),
    "hide": ("hid", "hidden"),
    "hold": ("held", "held"),
    "keep": ("kept", "kept"),
    "lose": ("lost", "lost"),
    "make": ("made", "made"),
    "pay": ("paid", "paid"),
    "sell": ("sold", "sold"),
    "sing": ("sang", "sung"),
    "sleep": ("slept", "slept"),
    "steal": ("stole", "stolen"),
    "swim": ("swam", "swum"),
    "take": ("took", "taken"),
    "teach": ("taught", "taught"),
    "throw": ("threw", "thrown"),
    "wear": ("wore", "worn"),
}

DOUBLING = {"grab", "hug", "swim"}
VOWELS = "aeiou"
ARTICLE = re.compile(r"\ban? (\w+)")


def plural(noun: str) -> str:
    return PLURALS.get(noun) or _ending_in_s(noun)


def third(verb: str) -> str:
    """Third person singular: walk -> walks."""
    return _ending_in_s(verb)


def past(verb: str) -> str:
    return IRREGULAR[verb][0] if verb in IRREGULAR else _ending_in_ed(verb)


def participle(verb: str) -> str:
    """Past participle, as in "was seen": see -> seen."""
    return IRREGULAR[verb][1] if verb in IRREGULAR else _ending_in_ed(verb)


def gerund(verb: str) -> str:
    if verb.endswith("e") and not verb.endswith("ee"):
        return verb[:-1] + "ing"
    return (verb + verb[-1] if verb in DOUBLING else verb) + "ing"


def a(phrase: str) -> str:
    """The phrase with its indefinite article: owl -> an owl (spelling stands in for sound)."""
    return f"an {phrase}" if phrase[0].lower() in VOWELS else f"a {phrase}"


def with_articles(text: str) -> str:
    """The text with each indefinite article fitted to the word after it."""
    return ARTICLE.sub(lambda found: a(found[1]), text)


def sentence(text: str, end: str = ".") -> str:
    """Capital first letter, single spaces, closing punctuation."""
    text = " ".join(text.split())
    return text[0].upper() + text[1:] + end


def question(text: str) -> str:
    return sentence(text, end="?")


def passage(*clauses: str) -> str:
    return " ".join(map(sentence, clauses))


def _ending_in_s(word: str) -> str:
    if word.endswith("y") and word[-2] not in VOWELS:
        return word[:-1] + "ies"
    hissing = word.endswith(("s", "sh", "ch", "x", "z", "to"))
    return word + ("es" if hissing else "s")


def _ending_in_ed(verb: str) -> str:
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in VOWELS:
        return verb[:-1] + "ied"
    return (verb + verb[-1] if verb in DOUBLING else verb) + "ed"
