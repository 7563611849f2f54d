"""A problem of random tokens: for measuring what training costs, which does not depend on what the rows say."""

from dataclasses import dataclass

import numpy as np
import torch

from paperlib import tasks
from paperlib.backbones import Backbone
from paperlib.errors import InputError
from paperlib.kernels.triton_path import sent
from paperlib.tasks.encoding import Encoded
from paperlib.training.problem import Problem

FIRST_LABEL = 10  # an id like any other


@dataclass
class RandomRows(Problem):
    """Two classes by chance, rows all of one length: no padding, so that a backbone without a tokenizer will do.

    A text-to-text model writes a label as one token and the end of sentence.
    """

    @classmethod
    def draw(cls, backbone: Backbone, rows: int, length: int, seed: int) -> "RandomRows":
        """``rows`` rows of exactly ``length`` ids, uniform over the backbone's vocabulary; InputError if it cannot read so many."""
        config = backbone.model.config
        longest = getattr(config, "max_position_embeddings", length)
        if length > longest:
            raise InputError(
                f"backbone {backbone.name} reads {longest} tokens at most; give a length up to that, not {length}"
            )
        generator = np.random.default_rng(seed)
        ids = generator.integers(0, config.vocab_size, (rows, length), dtype=np.int64)
        if config.is_encoder_decoder:
            # BART's head reads a row's last end of sentence, and wants as many of them in every row.
            end = config.eos_token_id
            ids = np.where(ids == end, (end + 1) % config.vocab_size, ids)
            ids[:, -1] = end
        labels = generator.integers(0, 2, rows, dtype=np.int64)
        written = [np.array([label, config.eos_token_id]) for label in labels + FIRST_LABEL]
        drawn = Encoded(list(ids), labels=written if backbone.text_to_text else labels, gold=labels)
        return cls(tasks.get("rte"), backbone, train=drawn, validation=None, test=drawn)

    def batch(self, rows: Encoded, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """The rows ``indices`` on the model's device."""
        device = next(self.model.parameters()).device
        return {name: sent(tensor, device) for name, tensor in rows.batch(indices, pad_token_id=0).items()}
