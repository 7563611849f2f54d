"""Which rules write which task."""

from paperlib.tasks.diagnostics import (
    acceptability,
    answers,
    causes,
    cloze,
    commitment,
    duplicates,
    entailment,
    paraphrase,
    reading,
    scenes,
    science,
    senses,
    sentiment,
    similarity,
)
from paperlib.tasks.diagnostics.drawing import Rule

# generate() draws a family from each rule in turn, so that rules have equal shares (of families).
GRAMMARS: dict[str, tuple[Rule, ...]] = {
    "cola": acceptability.RULES,
    "sst2": sentiment.RULES,
    "mrpc": paraphrase.RULES,
    "stsb": similarity.RULES,
    "qqp": duplicates.RULES,
    "mnli": entailment.THREE_WAY,
    "qnli": answers.RULES,
    "rte": entailment.TWO_WAY,
    "boolq": reading.YES_NO,
    "cb": commitment.RULES,
    "copa": causes.RULES,
    "multirc": reading.SEVERAL_ANSWERS,
    "record": cloze.RULES,
    "superglue_rte": entailment.TWO_WAY,
    "wic": senses.RULES,
    "snli": scenes.SNLI,
    "sick": scenes.SICK,
    "scitail": science.RULES,
}
