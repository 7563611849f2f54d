"""How far apart two predictions of the same rows are: what R3F and R-Drop penalise."""

import torch
from torch.nn import functional

from paperlib.training import Problem


def symmetric_kl(logits: torch.Tensor, others: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """KL(p || q) + KL(q || p) per row, (B,), of the softmaxes p and q of two sets of logits.

    ``logits``, ``others``: (B, classes) with ``labels`` (B,), or (B, length, vocabulary) with ``labels`` (B, length), where the tokens
    whose label is not -100 are summed.
    """
    log_p, log_q = functional.log_softmax(logits, dim=-1), functional.log_softmax(others, dim=-1)
    divergence = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)
    return divergence if divergence.ndim == 1 else (divergence * (labels != -100)).sum(-1)


def is_regression(problem: Problem) -> bool:
    """Whether the model answers with a number, so that there are no distributions to compare."""
    return problem.task.kind == "regression" and not problem.backbone.text_to_text
