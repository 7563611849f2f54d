"""Training: one loop, and the contract methods are written to."""

from paperlib.training.loop import Loop, Outcome, Settings
from paperlib.training.method import Method, Together
from paperlib.training.problem import Problem

__all__ = ["Loop", "Method", "Outcome", "Problem", "Settings", "Together"]
