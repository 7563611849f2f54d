"""Real tokens per second of our loop and of transformers.Trainer, on the same model, rows, batch size and precision."""

import dataclasses
import tempfile
import time
from collections.abc import Callable

import torch
from tqdm import tqdm

from paperlib import backbones, measure
from paperlib.errors import InputError
from paperlib.tasks import Task
from paperlib.tasks.encoding import Encoded
from paperlib.tasks.splits import Splits
from paperlib.training.batches import epoch_batches
from paperlib.training.loop import Loop, Settings
from paperlib.training.method import Method
from paperlib.training.problem import Problem

LEARNING_RATE = 2e-5

Stretch = Callable[[], float]
"""Trains for a stretch of steps and returns real tokens per second."""


def contestants(
    task: Task, rows: Splits, backbone: str, batch_size: int, precision: str, seed: int, steps: int
) -> dict[str, Stretch]:
    """Our loop and two Trainers, each with a fresh model; InputError for a task that is no plain classification."""
    if task.kind != "classification":
        raise InputError(f"throughput compares plain classification tasks; {task.title} is not one")
    settings = Settings(epochs=1000, batch_size=batch_size, learning_rate=LEARNING_RATE, seed=seed, precision=precision)
    problems = [Problem.of(task, rows, backbones.load(backbone, task.outputs, seed)) for _ in range(3)]
    return {
        "paperlib": _ours(Loop(problems[0], Method(), settings), steps),
        "Trainer, defaults": _trainer(problems[1], settings, steps, grouped=False),
        "Trainer, grouped by length": _trainer(problems[2], settings, steps, grouped=True),
    }


def interleaved(stretches: dict[str, Stretch], repeats: int) -> dict[str, list[float]]:
    """Rates of every contestant, one stretch of each in turn; a first round warms up and is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in stretches}
    for counted in tqdm([False] + [True] * repeats, unit="round"):
        for name, stretch in stretches.items():
            rate = stretch()
            if counted:
                rates[name].append(rate)
    return rates


def _ours(loop: Loop, steps: int) -> Stretch:
    def batches():
        epoch = 0
        while True:
            yield from epoch_batches(loop.problem.train.lengths, loop.settings.batch_size, loop.settings.seed, epoch)
            epoch += 1

    endless = batches()

    def stretch() -> float:
        tokens, start = loop.state["tokens"], _now()
        for _ in range(steps):
            loop.step([next(endless)])
        return (loop.state["tokens"] - tokens) / (_now() - start)

    return stretch


def _trainer(problem: Problem, settings: Settings, steps: int, grouped: bool) -> Stretch:
    from datasets import Dataset
    from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    # The library's own choice, which ours departs from.
    problem.model.set_attn_implementation("sdpa")
    rows = Dataset.from_dict(_columns(problem.train))
    pad = DataCollatorWithPadding(problem.backbone.tokenizer)
    collated: list[int] = []

    def collate(features):
        batch = pad(features)
        collated.append(int(batch["attention_mask"].sum()))
        return batch

    class Clock(TrainerCallback):
        """From the beginning of the first step to the end of the last: the Trainer's own set-up is not held against it."""

        def on_step_begin(self, args, state, control, **rest):
            if state.global_step == 0:
                self.start = _now()

        def on_step_end(self, args, state, control, **rest):
            self.end = _now()

    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    by_length = (
        {"train_sampling_strategy": "group_by_length"}
        if "train_sampling_strategy" in known
        else {"group_by_length": True}
    )

    def stretch() -> float:
        collated.clear()
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder,
                max_steps=steps,
                per_device_train_batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                bf16=measure.precision(settings.precision) == "bf16",
                use_cpu=measure.device().type == "cpu",
                seed=settings.seed,
                warmup_steps=0,
                weight_decay=settings.weight_decay,
                max_grad_norm=settings.clip_norm,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=False,
                **(by_length if grouped else {}),
            )
            Trainer(problem.model, arguments, train_dataset=rows, data_collator=collate, callbacks=[clock]).train()
        return sum(collated[:steps]) / (clock.end - clock.start)

    return stretch


def _columns(rows: Encoded) -> dict[str, list]:
    columns = {"input_ids": rows.input_ids, "labels": rows.labels}
    if rows.token_type_ids is not None:
        columns["token_type_ids"] = rows.token_type_ids
    return {"attention_mask": [[1] * len(row) for row in rows.input_ids]} | {
        name: list(values) for name, values in columns.items()
    }


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
