"""A problem: one backbone on one task, its encoded rows, the loss and the scores."""

from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from paperlib.backbones import Backbone
from paperlib.errors import InputError
from paperlib.kernels.triton_path import sent
from paperlib.tasks import Task, metrics
from paperlib.tasks.encoding import Encoded, encode, encode_text_to_text
from paperlib.tasks.splits import Splits
from paperlib.training.batches import in_order_of_length

GENERATED_TOKENS = 20


@dataclass
class Problem:
    """``validation`` is None under a protocol that selects nothing; ``test`` is looked at once, at the end."""

    task: Task
    backbone: Backbone
    train: Encoded
    validation: Encoded | None
    test: Encoded

    @classmethod
    def of(cls, task: Task, splits: Splits, backbone: Backbone) -> "Problem":
        """Encode the splits for the backbone. InputError if it has no tokenizer."""
        if backbone.tokenizer is None:
            raise InputError(
                f"backbone {backbone.name!r} is a configuration without weights or tokenizer; it cannot be trained on text"
            )
        encoder = encode_text_to_text if backbone.text_to_text else encode

        def encoded(frame):
            return None if frame is None else encoder(frame, task, backbone.tokenizer)

        return cls(task, backbone, encoded(splits.train), encoded(splits.validation), encoded(splits.test))

    def copy(self) -> "Problem":
        """The same rows, and a backbone of its own with the weights as they are now."""
        return replace(self, backbone=replace(self.backbone, model=deepcopy(self.model)))

    @property
    def model(self) -> torch.nn.Module:
        """The model being trained."""
        return self.backbone.model

    def batch(self, rows: Encoded, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """The rows ``indices``, padded to their longest, on the model's device."""
        pad = self.backbone.tokenizer.pad_token_id
        device = next(self.model.parameters()).device
        return {name: sent(tensor, device) for name, tensor in rows.batch(indices, pad).items()}

    def logits(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Scores in fp32: (B, classes), (B, choices), (B, 1) for regression, or (B, length, vocabulary) for text-to-text."""
        if self.backbone.text_to_text:
            return self.model(**batch).logits.float()
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        scores = self.model(**inputs).logits.float()
        return scores.view(len(batch["labels"]), -1)

    def loss(self, logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy over rows (over label tokens for text-to-text); mean squared error for regression."""
        labels = batch["labels"]
        if self.backbone.text_to_text:
            return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        if self.task.kind == "regression":
            return functional.mse_loss(logits.squeeze(-1), labels.float())
        return functional.cross_entropy(logits, labels)

    def averaged(self, rows: Encoded, indices: np.ndarray) -> int:
        """Number of terms in the mean that is the loss of the rows ``indices``: label tokens for text-to-text, else rows."""
        return sum(len(rows.labels[i]) for i in indices) if self.backbone.text_to_text else len(indices)

    @torch.no_grad()
    def scores(self, rows: Encoded, batch_size: int):
        """What the model in evaluation mode says of every row: an array (rows, outputs), or generated texts."""
        self.model.eval()
        collected: list = [None] * len(rows)
        for indices in in_order_of_length(rows.lengths, batch_size):
            batch = self.batch(rows, indices)
            answers = self._generated(batch) if self.backbone.text_to_text else self.logits(batch).cpu().numpy()
            for index, answer in zip(indices, answers, strict=True):
                collected[index] = answer
        self.model.train()
        return collected if self.backbone.text_to_text else np.stack(collected)

    def evaluate(self, rows: Encoded, scores) -> dict[str, float]:
        """The task's metrics, the main one first."""
        score = metrics.evaluate_text if self.backbone.text_to_text else metrics.evaluate
        return score(self.task, scores, rows)

    def classes(self, scores) -> np.ndarray | None:
        """Predicted class of every row; None for texts, scores and candidates, which are no classes."""
        if self.backbone.text_to_text or self.task.kind in ("regression", "cloze"):
            return None
        return metrics.predictions(self.task, scores)

    def _generated(self, batch: dict[str, torch.Tensor]) -> list[str]:
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        tokens = self.model.generate(**inputs, max_new_tokens=GENERATED_TOKENS, do_sample=False, num_beams=1)
        return self.backbone.tokenizer.batch_decode(tokens, skip_special_tokens=True)
