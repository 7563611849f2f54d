"""Which rows make a batch: rows of like length together, batches in random order."""

from collections.abc import Iterator

import numpy as np

POOL = 50


def epoch_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Row numbers of every batch of one epoch, a function of ``(seed, epoch)`` alone.

    Rows are shuffled, cut into pools of ``POOL`` batches, sorted by length within a pool and cut into batches, which are then shuffled:
    padding nearly vanishes and each epoch mixes the rows anew. The last batch of an epoch may be smaller.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    pool = POOL * batch_size
    batches = [
        batch
        for start in range(0, len(order), pool)
        for batch in _cut(_by_length(order[start : start + pool], lengths), batch_size)
    ]
    return [batches[i] for i in generator.permutation(len(batches))]


def in_order_of_length(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Batches for evaluation: longest first, so that memory that suffices once suffices always."""
    return iter(_cut(_by_length(np.arange(len(lengths)), lengths), batch_size))


def _by_length(rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return rows[np.argsort(-lengths[rows], kind="stable")]


def _cut(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
