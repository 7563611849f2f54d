"""Word sense (WiC): a sense lexicon, two senses a word, each with contexts (after Pilehvar and
Camacho-Collados 2019).

Every context of a sense is paired with contexts of both senses, so that a sentence alone says nothing
about the label.
"""

from paperlib.tasks.diagnostics.drawing import Draw
from paperlib.tasks.diagnostics.english import sentence
from paperlib.tasks.diagnostics.lexicon import NAMES, PEOPLE

# word: (contexts of one sense, contexts of another); {who} is somebody.
SENSES: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    (
        "bank",
        (
            "{who} took [money|cash|coins] to the bank",
            "the bank gave {who} a [loan|credit card|mortgage]",
            "{who} works as a clerk in the bank",
        ),
        (
            "{who} sat on the bank of the [river|stream|canal]",
            "{who} pulled the [boat|net|fish] up the muddy bank",
            "[reeds|willows] grew on the bank where {who} slept",
        ),
    ),
    (
        "bat",
        (
            "{who} swung the bat at the [ball|pitcher's throw]",
            "{who} bought a [wooden|metal] bat for baseball",
            "the bat broke when {who} hit the ball",
        ),
        (
            "{who} saw a bat fly out of the [cave|attic]",
            "the bat hung upside down above {who}",
            "a bat with [brown|black] wings scared {who} at night",
        ),
    ),
    (
        "bark",
        (
            "the bark of the [dog|puppy] woke {who}",
            "{who} heard a loud bark behind the fence",
            "with a [sharp|sudden] bark the hound greeted {who}",
        ),
        (
            "{who} peeled the bark from the [tree|oak|birch]",
            "insects live under the bark, {who} explained",
            "{who} carved a name into the [rough|smooth] bark",
        ),
    ),
    (
        "spring",
        (
            "{who} plants flowers every spring",
            "in spring {who} [opens the windows|cleans the house]",
            "the snow melts in spring, said {who}",
        ),
        (
            "{who} replaced the spring in the [mattress|clock|pen]",
            "the metal spring jumped out at {who}",
            "{who} pressed the [steel|rusty] spring together",
        ),
    ),
    (
        "letter",
        (
            "{who} mailed a letter to [a friend|the mayor]",
            "the letter for {who} came in a [white|brown] envelope",
            "{who} signed the letter and added a stamp",
        ),
        (
            "{who} could not read the first letter of the [word|name]",
            "each letter of the alphabet has a sound, said {who}",
            "{who} typed a capital letter",
        ),
    ),
    (
        "pitcher",
        (
            "{who} filled the pitcher with [water|lemonade|milk]",
            "a [glass|clay] pitcher stood before {who}",
            "{who} poured juice from the pitcher",
        ),
        (
            "the pitcher threw the ball to {who}",
            "{who} cheered for the [new|young] pitcher of the team",
            "the pitcher lost the game, said {who}",
        ),
    ),
    (
        "match",
        (
            "{who} lit a match in the [dark|kitchen]",
            "{who} struck the match and lit a candle",
            "the match burned {who}'s fingers",
        ),
        (
            "{who} won the [tennis|chess|football] match",
            "{who} watched the match in the stadium",
            "the match ended in a draw, said {who}",
        ),
    ),
    (
        "ring",
        (
            "{who} wore a [gold|silver] ring on one finger",
            "{who} lost a wedding ring",
            "the jeweler sold {who} a ring with a diamond",
        ),
        (
            "the boxers climbed into the ring before {who}",
            "{who} knocked the boxer out of the ring",
            "the fighters left the ring [tired|bleeding], said {who}",
        ),
    ),
    (
        "crane",
        (
            "the crane lifted the [steel|concrete] beams above {who}",
            "{who} drives a crane at the building site",
            "a [tall|yellow] crane loaded the ship for {who}",
        ),
        (
            "{who} saw a crane standing in the [marsh|pond]",
            "the crane spread its wings near {who}",
            "a [white|gray] crane caught a fish, said {who}",
        ),
    ),
    (
        "mouse",
        (
            "the [cat|owl] caught the mouse behind {who}",
            "{who} saw a mouse eat the cheese",
            "a [gray|small] mouse ran over {who}'s foot",
        ),
        (
            "{who} clicked the mouse twice",
            "{who} plugged the mouse into the [computer|laptop]",
            "the [wireless|optical] mouse on {who}'s desk has two buttons",
        ),
    ),
    (
        "plant",
        (
            "{who} watered the plant in the [pot|window]",
            "the plant has green leaves and [red|white] flowers, said {who}",
            "{who} grew a plant from a seed",
        ),
        (
            "{who} works at a [chemical|car|steel] plant",
            "the plant was closed and {who} lost a job",
            "{who} runs a plant that makes engines",
        ),
    ),
    (
        "star",
        (
            "{who} saw a bright star in the [night|evening] sky",
            "the star is far from our planet, said {who}",
            "{who} looked at a star through the telescope",
        ),
        (
            "{who} met a [movie|pop|rock] star",
            "the star signed a photo for {who}",
            "{who} became a star after the first film",
        ),
    ),
    (
        "board",
        (
            "{who} nailed the [wooden|oak] board to the wall",
            "{who} sawed the board in half",
            "a loose board in the floor tripped {who}",
        ),
        (
            "the board of the company [fired|elected] {who}",
            "{who} was elected to the board of directors",
            "{who} told the board about the profits",
        ),
    ),
    (
        "club",
        (
            "{who} joined a [chess|tennis|book] club",
            "the club elected {who} as president",
            "{who} pays fees to the club every year",
        ),
        (
            "{who} hit the thief with a [heavy|wooden] club",
            "the caveman carried a club, said {who}",
            "{who} swung the club like a weapon",
        ),
    ),
    (
        "court",
        (
            "{who} was taken to court for [theft|fraud]",
            "the court found {who} guilty",
            "{who}'s lawyer spoke in court",
        ),
        (
            "{who} served the ball on the [tennis|clay] court",
            "the players left the court with {who}",
            "{who} practices on the basketball court",
        ),
    ),
    (
        "file",
        (
            "{who} saved the file on the [computer|disk]",
            "the file was deleted by {who}",
            "{who} opened a [large|broken] file with the program",
        ),
        (
            "{who} smoothed the [metal|edge] with a file",
            "{who} used a file to sharpen the saw",
            "the prisoner cut the bars with a file, said {who}",
        ),
    ),
    (
        "glasses",
        (
            "{who} wears glasses to read",
            "without glasses {who} cannot see the [board|screen]",
            "{who} broke the lenses of the glasses",
        ),
        (
            "{who} filled the glasses with [wine|water]",
            "{who} drank from both glasses",
            "the waiter brought {who} two glasses of [beer|juice]",
        ),
    ),
    (
        "nail",
        (
            "{who} hammered a nail into the [wall|wood]",
            "the picture hangs on a nail, said {who}",
            "{who} pulled a rusty nail out of the board",
        ),
        (
            "{who} painted one nail [red|pink]",
            "{who} bit a nail of the left hand",
            "the nail on {who}'s finger broke",
        ),
    ),
    (
        "palm",
        (
            "{who} sat in the shade of a palm",
            "a palm grows on the [beach|island], said {who}",
            "{who} climbed the palm to get a coconut",
        ),
        (
            "{who} held the coin in one palm",
            "the palm of {who}'s hand was [wet|dirty]",
            "{who} read the lines on my palm",
        ),
    ),
    (
        "pen",
        (
            "{who} wrote the note with a [blue|cheap] pen",
            "the pen ran out of ink, said {who}",
            "{who} signed the contract with a pen",
        ),
        (
            "{who} locked the [pigs|sheep] in the pen",
            "the sheep broke out of the pen and past {who}",
            "{who} built a pen for the [goats|calves]",
        ),
    ),
    (
        "pool",
        (
            "{who} swam in the [hotel|heated] pool",
            "{who} dived into the pool",
            "the water of the pool was cold, said {who}",
        ),
        (
            "{who} plays pool in the [bar|pub]",
            "{who} lost a game of pool",
            "{who} needs a cue and balls to play pool",
        ),
    ),
    (
        "rock",
        (
            "{who} threw a rock into the [lake|window]",
            "a heavy rock fell on {who}'s foot",
            "{who} climbed over the [wet|sharp] rock",
        ),
        (
            "{who} plays rock on the [guitar|drums]",
            "{who} listens to loud rock on the radio",
            "the rock concert was too loud for {who}",
        ),
    ),
    (
        "seal",
        (
            "the seal swam under the [ice|boat], said {who}",
            "{who} threw a fish to the seal",
            "a [gray|young] seal lay on the beach before {who}",
        ),
        (
            "{who} broke the seal on the [letter|jar]",
            "{who} pressed the royal seal into the wax",
            "the document has the seal of the king, said {who}",
        ),
    ),
    (
        "sentence",
        (
            "{who} wrote a long sentence in the [essay|book]",
            "{who} did not understand the last sentence of the page",
            "this sentence has no verb, said {who}",
        ),
        (
            "the judge gave {who} a [light|harsh] sentence",
            "{who} served a sentence of ten years in prison",
            "the sentence for the robbery shocked {who}",
        ),
    ),
    (
        "trunk",
        (
            "{who} put the [suitcase|spare tire] in the trunk of the car",
            "{who} opened the trunk and took out the bags",
            "the trunk of {who}'s car is full",
        ),
        (
            "the elephant raised its trunk toward {who}",
            "the elephant sprayed {who} with its trunk",
            "{who} fed [nuts|hay] to the trunk of the elephant",
        ),
    ),
    (
        "wave",
        (
            "a [high|cold] wave hit {who} on the beach",
            "{who} rode the wave on a surfboard",
            "the wave turned {who}'s boat over",
        ),
        (
            "with a wave of the hand {who} said goodbye",
            "{who} gave the crowd a friendly wave",
            "a wave from {who} stopped the taxi",
        ),
    ),
    (
        "table",
        (
            "{who} put the [plates|cups] on the table",
            "{who} built a table of oak",
            "{who} sat down at the [round|kitchen] table",
        ),
        (
            "{who} found the numbers in a table",
            "the table on page ten lists the [prices|results], said {who}",
            "{who} added a column to the table",
        ),
    ),
    (
        "cold",
        (
            "{who} caught a cold and [sneezed|coughed]",
            "{who} stayed in bed with a cold",
            "a doctor treated {who} for a cold",
        ),
        (
            "{who} shivered in the cold of [winter|the night]",
            "the cold froze the lake, said {who}",
            "{who} wore gloves against the cold",
        ),
    ),
    (
        "fan",
        (
            "{who} turned on the fan to cool the [room|kitchen]",
            "the fan blew air on {who}",
            "the [electric|ceiling] fan above {who} was noisy",
        ),
        (
            "{who} is a fan of the [team|band|singer]",
            "a fan asked {who} for an autograph",
            "{who} met an excited fan after the concert",
        ),
    ),
    (
        "key",
        (
            "{who} unlocked the [door|car] with a key",
            "{who} lost the key to the house",
            "the key did not fit {who}'s lock",
        ),
        (
            "{who} pressed the wrong key on the [piano|keyboard]",
            "the song is in a minor key, said {who}",
            "{who} hit the escape key",
        ),
    ),
    (
        "chest",
        (
            "{who} felt a pain in the chest",
            "the doctor listened to {who}'s chest",
            "{who} folded both arms over the chest",
        ),
        (
            "{who} kept the [gold|jewels] in a wooden chest",
            "{who} opened the old chest with a key",
            "the pirates buried a chest, said {who}",
        ),
    ),
    (
        "bow",
        (
            "{who} shot an arrow with the bow",
            "the hunter bent the bow near {who}",
            "{who} took a bow and arrows to the forest",
        ),
        (
            "{who} tied the ribbon in a bow",
            "{who} wore a [red|silk] bow in the hair",
            "the present for {who} had a pretty bow",
        ),
    ),
    (
        "drill",
        (
            "{who} made a hole with the drill",
            "the [electric|loud] drill belongs to {who}",
            "{who} bought a drill to fix the shelf",
        ),
        (
            "the fire drill surprised {who} at school",
            "{who} practiced the drill with the [soldiers|students]",
            "during the drill {who} left the building",
        ),
    ),
    (
        "jam",
        (
            "{who} spread jam on the [bread|toast]",
            "{who} made jam from [berries|plums]",
            "a jar of sweet jam stood before {who}",
        ),
        (
            "{who} sat in a traffic jam for [an hour|two hours]",
            "a jam on the highway delayed {who}",
            "{who} was late because of the jam",
        ),
    ),
    (
        "note",
        (
            "{who} left a note on the [door|desk]",
            "{who} wrote a short note to the teacher",
            "the note told {who} to call home",
        ),
        (
            "{who} sang a high note",
            "{who} played the wrong note on the [violin|piano]",
            "the last note of {who}'s song was too low",
        ),
    ),
    (
        "party",
        (
            "{who} danced at the [birthday|garden] party",
            "{who} brought a cake to the party",
            "the party at {who}'s house ended at midnight",
        ),
        (
            "{who} votes for the [green|liberal] party",
            "the party lost the election, said {who}",
            "{who} is a candidate of the party",
        ),
    ),
)


def somebody(draw: Draw) -> str:
    return draw.one((draw.one(NAMES), f"the {draw.one(PEOPLE)}"))


def context(draw: Draw, template: str) -> str:
    return sentence(draw.fill(template, who=somebody(draw)))


def same_or_other_sense(draw: Draw) -> list[tuple]:
    """Two contexts of one sense, and one context of each."""
    word, *senses = draw.one(SENSES)
    one, other = draw.some(senses, 2)
    first, second = draw.some(one, 2)
    third, fourth = draw.one(one), draw.one(other)
    return [
        (context(draw, first), context(draw, second), word, "true"),
        (context(draw, third), context(draw, fourth), word, "false"),
    ]


RULES = (same_or_other_sense,)
