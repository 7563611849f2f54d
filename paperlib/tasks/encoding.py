"""Rows -> token ids: ``encode`` for encoders with a head, ``encode_text_to_text`` for text-to-text models."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from paperlib.tasks.registry import Task

if TYPE_CHECKING:
    import pandas as pd
    import torch

COPA_QUESTIONS = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}
IGNORED = -100  # label of a padded target token: the loss skips it


@dataclass(frozen=True)
class Encoded:
    """Tokenized examples. An example is ``choices`` consecutive rows (2 for COPA, otherwise 1).

    input_ids       one int array per row; token_type_ids likewise, or None where the tokenizer has none
    labels          targets of the loss, one per example: int64 (n,), float32 (n,) for regression,
                    one int array per example for text-to-text
    gold            what metrics compare with: int or float array (n,); ReCoRD: the gold strings of each query
    groups          MultiRC: number of the row's question; ReCoRD: of its query (index into ``gold``)
    candidates      ReCoRD, encoders: the entity filled into each row; else None
    """

    input_ids: list[np.ndarray]
    labels: np.ndarray | list[np.ndarray]
    gold: np.ndarray | list[list[str]]
    choices: int = 1
    token_type_ids: list[np.ndarray] | None = None
    groups: np.ndarray | None = None
    candidates: list[str] | None = None

    def __len__(self) -> int:
        return len(self.input_ids) // self.choices

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of the longest row of each example, int64 (n,)."""
        return np.array([len(row) for row in self.input_ids], dtype=np.int64).reshape(-1, self.choices).max(axis=1)

    def batch(self, indices: np.ndarray, pad_token_id: int) -> "dict[str, torch.Tensor]":
        """Tensors of the examples ``indices``, padded on the right to their longest row (L tokens).

        input_ids, attention_mask and, where there are any, token_type_ids: int64 (B * choices, L),
        the rows of an example together; labels: (B,), or int64 (B, longest target) padded with -100.
        """
        import torch

        rows = (np.asarray(indices)[:, None] * self.choices + np.arange(self.choices)).ravel()
        ids, mask = _padded([self.input_ids[row] for row in rows], pad_token_id)
        arrays = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        if self.token_type_ids is not None:
            arrays["token_type_ids"] = _padded([self.token_type_ids[row] for row in rows], 0)[0]
        if isinstance(self.labels, list):
            arrays["labels"] = _padded([self.labels[i] for i in indices], IGNORED)[0]
        else:
            arrays["labels"] = self.labels[np.asarray(indices)]
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def encode(frame: "pd.DataFrame", task: Task, tokenizer, max_length: int | None = None) -> Encoded:
    """Rows for an encoder: one text, or a pair of which the longer is cut first.

    ``max_length`` is in tokens, special ones included (default ``task.max_length``).

    COPA: two rows per example, (premise and question, choice). MultiRC: (paragraph, question and answer)
    per answer. ReCoRD: (passage, query with the entity in the placeholder) per candidate entity, label 1
    where it is a gold answer. WiC: the word leads the first sentence.
    """
    fields = _FIELDS.get(task.name, _fields)(frame, task)
    texts = [list(column) for column in fields.pop("texts")]
    tokens = tokenizer(
        *texts,
        truncation="longest_first" if len(texts) == 2 else True,
        max_length=max_length or task.max_length,
        return_attention_mask=False,
    )
    types = tokens.get("token_type_ids")
    return Encoded(
        _arrays(tokens["input_ids"]),
        token_type_ids=None if types is None else _arrays(types, np.int8),
        **fields,
    )


def encode_text_to_text(frame: "pd.DataFrame", task: Task, tokenizer, max_length: int | None = None) -> Encoded:
    """Rows for a text-to-text model.

    ``prompts`` cut on the right to ``max_length`` tokens, ``targets`` as labels (S3Delta, appendix C).
    """
    tokens = tokenizer(
        prompts(frame, task),
        truncation=True,
        max_length=max_length or task.max_length,
        return_attention_mask=False,
    )
    labels = tokenizer(text_target=targets(frame, task), return_attention_mask=False)
    gold = list(frame["answers"]) if task.kind == "cloze" else frame["label"].to_numpy()
    groups = frame["question_idx"].to_numpy() if task.kind == "answers" else None
    return Encoded(_arrays(tokens["input_ids"]), labels=_arrays(labels["input_ids"]), gold=gold, groups=groups)


def prompts(frame: "pd.DataFrame", task: Task) -> list[str]:
    """``<task> key: text key: text ...`` in T5's style; a list of entities is joined with commas."""
    columns = [[f"{name}: {_text(value)}" for value in frame[name]] for name in task.prompt]
    return [" ".join((task.name, *parts)) for parts in zip(*columns, strict=True)]


def targets(frame: "pd.DataFrame", task: Task) -> list[str]:
    """Label index as digits; STS-B's score on the 0.2 grid ("3.8"); ReCoRD's first gold answer."""
    if task.kind == "cloze":
        return [answers[0] for answers in frame["answers"]]
    if task.kind == "regression":
        return [f"{score:.1f}" for score in np.rint(frame["label"].to_numpy() * 5) / 5]
    return [str(label) for label in frame["label"]]


def _fields(frame: "pd.DataFrame", task: Task) -> dict:
    labels = frame["label"].to_numpy().astype(np.float32 if task.kind == "regression" else np.int64)
    return {
        "texts": [frame[name] for name in task.columns],
        "labels": labels,
        "gold": frame["label"].to_numpy(),
    }


def _wic(frame: "pd.DataFrame", task: Task) -> dict:
    return _fields(frame, task) | {"texts": [frame["word"] + ": " + frame["sentence1"], frame["sentence2"]]}


def _copa(frame: "pd.DataFrame", task: Task) -> dict:
    premise = frame["premise"] + " " + frame["question"].map(COPA_QUESTIONS)
    choices = frame[["choice1", "choice2"]].to_numpy().ravel()
    return _fields(frame, task) | {"texts": [premise.repeat(2), choices], "choices": 2}


def _multirc(frame: "pd.DataFrame", task: Task) -> dict:
    texts = [frame["paragraph"], frame["question"] + " " + frame["answer"]]
    return _fields(frame, task) | {"texts": texts, "groups": frame["question_idx"].to_numpy()}


def _record(frame: "pd.DataFrame", task: Task) -> dict:
    rows = [
        (number, _text(row.passage), row.query.replace("@placeholder", entity), entity, entity in row.answers)
        for number, row in enumerate(frame.itertuples(index=False))
        for entity in row.entities
    ]
    groups, passages, queries, candidates, right = (list(column) for column in zip(*rows, strict=True))
    return {
        "texts": [passages, queries],
        "labels": np.array(right, dtype=np.int64),
        "gold": list(frame["answers"]),
        "groups": np.array(groups),
        "candidates": candidates,
    }


_FIELDS = {"wic": _wic, "copa": _copa, "multirc": _multirc, "record": _record}


def _text(value: str | list[str]) -> str:
    """Plain text: entity lists joined.

    ReCoRD's highlight marks, which stand between a passage and its summary points, made full stops.
    """
    if not isinstance(value, str):
        return ", ".join(value)
    return (
        re.sub(r"\s*@highlight\s*", ". ", re.sub(r"([.?!\"'])\s*@highlight\s*", r"\1 ", value))
        if "@highlight" in value
        else value
    )


def _arrays(rows: list[list[int]], dtype: type = np.int32) -> list[np.ndarray]:
    """Narrow types, since ReCoRD has more than a million rows; a batch is int64."""
    return [np.array(row, dtype=dtype) for row in rows]


def _padded(rows: list[np.ndarray], fill: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows in one int64 array (rows, longest), filled on the right, and the mask of what is not filling."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
    array = np.full(mask.shape, fill, dtype=np.int64)
    array[mask] = np.concatenate(rows)
    return array, mask
