"""Real tokens per second of our loop and of transformers.Trainer, on the same model, rows, batch size and precision, and the FLOP in them."""

import copy
import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Pace:
    """A stretch of steps: real tokens of each row, its seconds, and its joules, None where the driver does not tell."""

    lengths: Sequence[int]
    seconds: float
    joules: float | None

    @property
    def tokens_per_second(self) -> float:
        return sum(self.lengths) / self.seconds


Stretch = Callable[[], Pace]
"""Trains for a stretch of steps."""


@dataclass(frozen=True)
class RowFlops:
    """FLOP of a row's forward and backward pass: ``at_once`` whatever its length, ``per_token``, and ``per_pair`` of tokens, by attention.

    Of products alone, as is usual: softmax, normalisation and activations are left out.
    """

    at_once: int
    per_token: int
    per_pair: int

    @classmethod
    def of(cls, model: torch.nn.Module) -> "RowFlops":
        """By torch's counter, on the meta device: through three lengths, since no product grows faster than with the length's square."""
        one, two, three = (counted_flops(model, length) for length in (1, 2, 3))
        per_pair = (three - 2 * two + one) // 2
        per_token = two - one - 3 * per_pair
        return cls(one - per_token - per_pair, per_token, per_pair)

    def __call__(self, lengths: Iterable[int]) -> int:
        """FLOP of rows of so many real tokens each."""
        return sum(self.at_once + self.per_token * n + self.per_pair * n * n for n in map(int, lengths))


def counted_flops(model: torch.nn.Module, length: int) -> int:
    """FLOP of the products in one row's forward and backward pass; ``model``: an encoder with a head, whose weights are not touched.

    Attention is eager, because the counter does not see every fused kernel.
    """
    from torch.utils.flop_counter import FlopCounterMode

    model = copy.deepcopy(model).to("meta")
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, length, dtype=torch.long, device="meta")).logits.sum().backward()
    return counter.get_total_flops()


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


def interleaved(stretches: dict[str, Stretch], repeats: int) -> dict[str, list[Pace]]:
    """Paces of every contestant, one stretch of each in turn; a first round warms up and is not counted."""
    paces: dict[str, list[Pace]] = {name: [] for name in stretches}
    for counted in tqdm([False] + [True] * repeats, unit="round"):
        for name, stretch in stretches.items():
            pace = stretch()
            if counted:
                paces[name].append(pace)
    return paces


def _ours(loop: Loop, steps: int) -> Stretch:
    def batches():
        epoch = 0
        while True:
            yield from epoch_batches(loop.problem.train.lengths, loop.settings.batch_size, loop.settings.seed, epoch)
            epoch += 1

    endless = batches()

    def stretch() -> Pace:
        rows = [next(endless) for _ in range(steps)]
        energy, start = measure.Energy(), measure.now()
        for each in rows:
            loop.step([each])
        seconds, joules = measure.now() - start, energy.joules()
        return Pace([int(n) for each in rows for n in loop.problem.train.lengths[each]], seconds, joules)

    return stretch


def _trainer(problem: Problem, settings: Settings, steps: int, grouped: bool) -> Stretch:
    from datasets import Dataset
    from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    # The library's own choice, which ours departs from.
    problem.model.set_attn_implementation("sdpa")
    rows = Dataset.from_dict(_columns(problem.train))
    pad = DataCollatorWithPadding(problem.backbone.tokenizer)
    collated: list[list[int]] = []

    def collate(features):
        batch = pad(features)
        collated.append(batch["attention_mask"].sum(1).tolist())
        return batch

    class Clock(TrainerCallback):
        """From the beginning of the first step to the end of the last: the Trainer's own set-up is not held against it."""

        def on_step_begin(self, args, state, control, **rest):
            if state.global_step == 0:
                self.energy, self.start = measure.Energy(), measure.now()

        def on_step_end(self, args, state, control, **rest):
            # Only then does the host wait for a GPU.
            if state.global_step == steps:
                self.seconds, self.joules = measure.now() - self.start, self.energy.joules()

    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    by_length = (
        {"train_sampling_strategy": "group_by_length"}
        if "train_sampling_strategy" in known
        else {"group_by_length": True}
    )

    def stretch() -> Pace:
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
        # Batches fetched ahead are not trained on.
        return Pace([length for batch in collated[:steps] for length in batch], clock.seconds, clock.joules)

    return stretch


def _columns(rows: Encoded) -> dict[str, list]:
    columns = {"input_ids": rows.input_ids, "labels": rows.labels}
    if rows.token_type_ids is not None:
        columns["token_type_ids"] = rows.token_type_ids
    return {"attention_mask": [[1] * len(row) for row in rows.input_ids]} | {
        name: list(values) for name, values in columns.items()
    }
