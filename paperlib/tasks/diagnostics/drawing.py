"""Seeded draws: the only source of chance in the grammars."""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
CHOICE = re.compile(r"\[([^\[\]]*)\]")


class Draw:
    """Draws from sequences (never from sets or dicts, so that order is the source file's) with a numpy
    Generator.
    """

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def one(self, options: Sequence[T]) -> T:
        return options[int(self.rng.integers(len(options)))]

    def some(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different options, in random order."""
        return [options[int(i)] for i in self.rng.permutation(len(options))[:count]]

    def maybe(self, chance: float = 0.5) -> bool:
        return bool(self.rng.random() < chance)

    def fill(self, template: str, **slots: str) -> str:
        """Fill the named {slots}, then every `[this|that|the other]` by a draw; other braces stay for the
        caller.
        """
        for name, value in slots.items():
            template = template.replace(f"{{{name}}}", value)
        return CHOICE.sub(lambda found: self.one(found[1].split("|")), template)


# A rule draws one family: the rows that belong together (a minimal pair, a question with its answers). A row
# is a tuple in the order of the task's columns, label last: a label's name, or a number where the task has
# no label names.
Rule = Callable[[Draw], list[tuple]]
