"""Philox 4x32-10 (Salmon, Moraes, Dror and Shaw 2011): random words that are a function of a key and a counter, so that nothing is kept to draw
them again."""

import torch

MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
INCREMENTS = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
LOW = 0xFFFFFFFF

Words = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Four random words for every counter. Words are 32 bits, kept in int64 tensors of one shape."""
    c0, c1, c2, c3 = counter
    for i in range(ROUNDS):
        k0, k1 = ((word + i * increment) & LOW for word, increment in zip(key, INCREMENTS, strict=True))
        # A product of 32-bit words may pass 2^63: its bits, and so both of its halves, are right all the same.
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (second >> 32 & LOW) ^ c1 ^ k0, second & LOW, (first >> 32 & LOW) ^ c3 ^ k1, first & LOW
    return c0, c1, c2, c3


def words(seed: int, step: int, first: int, count: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Words ``first`` to ``first + count - 1`` of the stream of (seed, step), int64 (count,), each in 0..2^32 - 1.

    Word n is output n % 4 of the counter (n // 4, step, 0, 0) under the key seed. ``seed``: 64 bits; ``step``, n // 4: 32 bits.
    """
    block = torch.arange(first // 4, (first + count + 3) // 4, device=device)
    zero = torch.zeros_like(block)
    drawn = torch.stack(philox((block & LOW, zero + (step & LOW), zero, zero), (seed & LOW, seed >> 32 & LOW)), dim=1)
    return drawn.view(-1)[first % 4 :][:count]
