"""Parameters of ``runs/transfer``: rows are named by task and split, and never those that train."""

import pytest

from paperlib import parameters
from paperlib.errors import InputError
from paperlib.parameters import profiles
from paperlib.parameters.runs import SPLITS

RUN = "runs/transfer"


def refusal(**values) -> str:
    with pytest.raises(InputError) as error:
        parameters.resolve(RUN, values)
    message = str(error.value)
    assert "\n" not in message and message.startswith(RUN)
    return message


def test_targets_are_rows_of_tasks():
    targets = ["mnli:validation_mismatched", "rte:train"]
    assert parameters.resolve(RUN, {"targets": targets}).targets == targets


@pytest.mark.parametrize("rows", ["rte", "rte:", "rte:dev", "rte:test:2", ""])
def test_a_target_names_its_split(rows):
    assert f"targets.0: {rows!r} names no rows; write task:split, the split one of {', '.join(SPLITS)}" in refusal(
        targets=[rows]
    )


def test_a_target_is_of_a_known_task():
    assert "unknown task 'rta' (did you mean 'rte'?)" in refusal(targets=["rta:test"])


@pytest.mark.parametrize("split", ["train", "validation"])
def test_rows_that_train_are_no_target(split):
    message = refusal(task="sick", train_split=split, targets=["rte:validation", f"sick:{split}"])
    assert f"target 'sick:{split}' holds the training rows" in message


def test_another_split_of_the_training_task_is_a_target():
    given = {"task": "snli", "train_split": "validation", "targets": ["snli:test", "snli:train", "sick:validation"]}
    assert parameters.resolve(RUN, given).targets == given["targets"]


def test_there_is_at_least_one_target_and_none_twice():
    assert "targets: " in refusal(targets=[])
    assert "name each once" in refusal(targets=["rte:validation", "rte:validation"])


def test_test_rows_never_train():
    assert "train_split: " in refusal(train_split="test")


def test_it_trains_like_fine_tuning_does():
    ours, theirs = (set(parameters.model_of(name).model_fields) for name in (RUN, "runs/finetune"))
    assert ours - theirs == {"train_split", "targets"} and theirs - ours == {"protocol"}
    defaults = [parameters.resolve(name, {}).model_dump() for name in (RUN, "runs/finetune")]
    assert {name: defaults[0][name] for name in ours & theirs - {"task"}} == {
        name: defaults[1][name] for name in ours & theirs - {"task"}
    }


@pytest.mark.parametrize("profile", profiles.names())
def test_every_profile_scores_the_rows_it_trains_for_and_others(profile):
    """In domain and out of it, and targets with two labels."""
    for job in profiles.run_jobs(profile, "dps/e_label_mapping", {}):
        scored = {name.partition(":")[0] for name in job.parameters["targets"]}
        assert {job.parameters["task"], "scitail", "rte"} <= scored
