"""Diagnostics: seeded generators of minimal-pair data, one for every task of the registry.

Each grammar writes rows in the schema of a GLUE, SuperGLUE or inference task, but tests chosen phenomena,
in the spirit of BLiMP (Warstadt et al. 2020), HANS (McCoy et al. 2019) and PAWS (Zhang et al. 2019): the
rows of one family use nearly the same words and differ in what decides the label, so that a bag of words
is nearly blind. A score on diagnostics is not a GLUE score.

>>> list(generate("cola", seed=0)["train"])
['sentence', 'label']
"""

from paperlib.tasks.diagnostics.generation import SIZES, SPLITS, generate
from paperlib.tasks.diagnostics.grammars import GRAMMARS

__all__ = ["GRAMMARS", "SIZES", "SPLITS", "generate"]
