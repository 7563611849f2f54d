"""A sub-task of LeTS from its architecture to its test rows, and what it keeps."""

import pytest
import torch

from paperlib.lets.architecture import Architecture, Own
from paperlib.lets.masked_tuning import WarmUp
from paperlib.lets.offsets import Offset
from paperlib.lets.problem import TaskProblem
from paperlib.lets.readout import ReadoutSizes
from paperlib.lets.sub_task import SubTask, stored

SIZES = ReadoutSizes(2, 3)
MIXED = Architecture((Own(False, True, False), Own(True, False, True)))


def sub_task(architecture: Architecture, k: float, **values) -> SubTask:
    return SubTask(architecture, k, WarmUp(steps=2, batch_size=4, precision="fp32"), 1e-3, SIZES, **values)


@pytest.fixture
def trained(make_problem, make_settings, tmp_path):
    return lambda architecture, k, **values: sub_task(architecture, k, **values).train(
        make_problem(), make_settings(steps=3), tmp_path
    )


def test_a_share_of_the_owned_offsets_is_trained(trained, make_problem):
    found = trained(MIXED, 0.05)
    whole = TaskProblem(make_problem(), MIXED, SIZES).model.sizes()
    assert len(found.outcome.losses) == 3 and found.architecture == MIXED and found.mask_seconds > 0
    kept = round(0.05 * whole["offsets"])
    scalars = whole | {"offsets": kept}
    assert found.sizes == scalars | {"bytes": 4 * sum(scalars.values()) + 4 * kept}


def test_kept_shares_are_those_of_q_k_and_v(trained):
    kept = trained(MIXED, 0.05, per_matrix=True).kept
    assert kept == [pytest.approx(0.05, abs=0.001), 0.0], "the second layer owns no attention"


def test_without_a_mask_all_owned_offsets_are_trained(trained, make_problem):
    found = trained(MIXED, 1.0)
    assert found.sizes == stored(TaskProblem(make_problem(), MIXED, SIZES).model.sizes(), {})
    assert found.kept == [1.0, 0.0] and found.mask_seconds < 1


def test_a_sub_task_that_shares_everything_trains_its_readout(trained):
    found = trained(Architecture.all_share(2), 0.05)
    assert found.sizes["offsets"] == found.sizes["biases"] == 0 < found.sizes["readout"]
    assert found.kept == [0.0, 0.0]


def test_bytes_are_four_for_a_scalar_and_four_for_a_place():
    offset = Offset(torch.ones(3), torch.tensor([0, 2, 5], dtype=torch.int32), (2, 3))
    assert stored({"offsets": 3, "readout": 10}, {"query": offset})["bytes"] == 4 * 13 + 4 * 3
