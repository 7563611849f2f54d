"""Frequent, single English words, grouped by what the grammars need to know about them.

Every group is a tuple: draws depend on the order, and the order is what is written here.
"""


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WOMEN = words("Anna Mary Susan Laura Emma Julia Sarah Helen Alice Diana Karen Nina Olivia Rachel Sophie Claire")
MEN = words("John Peter David James Robert Thomas Daniel Paul Simon Henry Frank George Oscar Victor Adam Martin")
NAMES = WOMEN + MEN
CITIES = words(
    "Paris London Berlin Rome Madrid Vienna Boston Chicago Dublin Prague Oslo Lisbon Athens Tokyo Moscow Cairo"
)
REGIONS = words(
    "Africa Asia Europe Australia Canada Brazil China India Japan Mexico Norway Spain Chile Egypt Peru Alaska"
)
MONTHS = words("January February March April May June July August September October November December")
DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")

PEOPLE = words(
    "teacher doctor nurse lawyer farmer pilot singer writer actor artist banker driver student judge "
    "soldier sailor baker guard manager waiter dancer priest senator scientist engineer professor "
    "tourist neighbor hunter butler"
)
PLACES = words("garden park kitchen library market museum office station theater hotel harbor church hospital school")
COLORS = words("red blue green yellow black white brown purple orange pink")
SKILLS = words("cook dance swim drive paint sing write draw ski sail")
UNITS = words("meters feet miles kilometers inches yards pounds kilograms dollars euros")
FOODS = words(
    "rice beans cheese butter milk honey garlic bacon salmon chicken pasta bread mushrooms tomatoes spinach onions"
)
SUBJECTS = words("physics history chemistry music law medicine biology philosophy geography economics")
NUMBERS = words("two three four five six seven eight nine ten eleven twelve")

# Hypernym -> hyponyms; no word stands in two groups.
KINDS = {
    "animal": words("dog cat horse cow goat rabbit pig fox"),
    "bird": words("eagle duck owl crow swan pigeon"),
    "instrument": words("violin guitar piano flute trumpet cello"),
    "vehicle": words("car truck bus van tractor taxi"),
    "fruit": words("apple banana peach pear cherry lemon"),
    "tool": words("hammer saw shovel drill axe wrench"),
    "flower": words("rose tulip lily daisy orchid"),
    "building": words("house castle barn tower temple palace"),
    "garment": words("shirt jacket coat dress scarf skirt"),
    "vegetable": words("carrot potato onion cabbage tomato pepper"),
}
ANIMATE_KINDS = ("animal", "bird")
OBJECT_KINDS = ("instrument", "vehicle", "fruit", "tool", "flower", "garment", "vegetable")

# What one person does to another; all allow a passive, and swapping the roles changes the meaning.
REVERSIBLE = words(
    "admire blame call chase criticize follow greet help hire ignore invite praise pay thank trust "
    "visit warn watch teach hug push save contact interview recognize support annoy attack defend"
)
# What one person does alone.
INTRANSITIVE = words("laugh smile sleep arrive sing dance cry shout wait listen swim cough yawn complain relax")
# What one does to a thing.
HANDLING = words("buy sell paint clean find hide lose carry steal break draw throw keep photograph")

PERSON_SYNONYMS = (
    ("doctor", "physician"),
    ("lawyer", "attorney"),
    ("child", "kid"),
    ("writer", "author"),
    ("teacher", "instructor"),
    ("thief", "robber"),
    ("guard", "watchman"),
    ("soldier", "warrior"),
    ("policeman", "officer"),
    ("boss", "chief"),
)
VERB_SYNONYMS = (
    ("buy", "purchase"),
    ("choose", "select"),
    ("destroy", "ruin"),
    ("find", "discover"),
    ("hide", "conceal"),
    ("grab", "seize"),
    ("carry", "transport"),
    ("draw", "sketch"),
    ("throw", "toss"),
    ("show", "display"),
)
ADJECTIVE_SYNONYMS = (
    ("big", "large"),
    ("fast", "quick"),
    ("clever", "smart"),
    ("rich", "wealthy"),
    ("angry", "furious"),
    ("happy", "cheerful"),
    ("sick", "ill"),
    ("quiet", "silent"),
    ("strange", "odd"),
    ("pretty", "beautiful"),
    ("brave", "courageous"),
    ("famous", "renowned"),
    ("tired", "exhausted"),
    ("scared", "afraid"),
)
ADJECTIVE_ANTONYMS = (
    ("old", "young"),
    ("rich", "poor"),
    ("tall", "short"),
    ("happy", "sad"),
    ("strong", "weak"),
    ("calm", "nervous"),
    ("polite", "rude"),
    ("honest", "dishonest"),
    ("lazy", "busy"),
    ("famous", "unknown"),
    ("healthy", "sick"),
    ("brave", "cowardly"),
    ("clever", "stupid"),
    ("generous", "selfish"),
)
# comparative and its converse
COMPARATIVES = (
    ("older", "younger"),
    ("taller", "shorter"),
    ("richer", "poorer"),
    ("faster", "slower"),
    ("stronger", "weaker"),
    ("heavier", "lighter"),
    ("happier", "sadder"),
    ("louder", "quieter"),
)
TRAITS = words("tall young old rich famous tired angry happy quiet brave lazy clever polite nervous")
