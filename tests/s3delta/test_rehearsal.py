"""The watched search and retraining: who is trained, who is scored, and that a breach would be seen."""

import pytest
import torch

from paperlib.s3delta import rehearsal
from paperlib.s3delta.positions import BASELINES
from paperlib.s3delta.tuning import DeltaTuning
from paperlib.tasks import get, load, splits


def parts(rows=32):
    task = get("cb")
    return task, splits.of_protocol("s3delta", load(task, "diagnostics"), task, 0, rows)


@pytest.fixture(scope="module")
def watched():
    task, divided = parts()
    return rehearsal.rehearse(task, divided, "tiny-bert", seed=0, steps=4, interval=2), divided


def test_the_search_scores_validation_rows_alone(watched):
    (search, _), divided = watched
    assert search.scored == {"validation": 2} and search.validations == 2
    assert (search.rows, search.steps) == (len(divided.train), 4)


def test_retraining_uses_all_training_rows_and_scores_test_rows_once(watched):
    (_, retrain), divided = watched
    assert retrain.scored == {"validation": 2, "test": 1}
    assert (retrain.rows, retrain.steps) == (len(divided.train), 4)


def test_both_step_with_adamw_along_a_straight_line(watched):
    for seen in watched[0]:
        assert seen.optimizer == "AdamW" and seen.linear < 1e-12


def test_both_leave_the_backbone_alone(watched):
    assert all(seen.frozen for seen in watched[0])


def test_a_constant_rate_is_off_the_line():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([{"params": [parameter], "lr": 1e-3, "initial_lr": 1e-3}])
    rates = rehearsal._Rates(optimizer)
    for _ in range(4):
        parameter.grad = torch.ones(1)
        optimizer.step()
    assert rates.deviation(4) == 0.75


def test_a_moved_backbone_is_seen():
    """Fine-tuning in place of delta tuning."""
    task, divided = parts()
    loaded, problem = rehearsal._problem(task, divided, "tiny-bert", 0)
    before = rehearsal._backbone(loaded.model)
    assert rehearsal._same(before, rehearsal._backbone(loaded.model))
    DeltaTuning("fine_tuning").attach(loaded.model, 1)
    with torch.no_grad():
        next(iter(loaded.model.parameters())).add_(1e-6)
    assert not rehearsal._same(before, rehearsal._backbone(loaded.model))


@pytest.mark.parametrize("name, head", [("tiny-bert", 33 * 3), ("tiny-t5", 0)])
def test_fine_tuning_alone_trains_the_backbone(name, head):
    rows = {row["placement"]: row for row in rehearsal.trained(name, 3)}
    assert rows.keys() == {"fine_tuning", *BASELINES}
    assert [placement for placement, row in rows.items() if row["backbone"]] == ["fine_tuning"]
    assert {row["head"] for row in rows.values()} == {head}
    assert {row["backbone"] + row["frozen"] for row in rows.values()} == {rows["fine_tuning"]["backbone"]}
    assert all((row["deltas"] > 0) == (placement != "fine_tuning") for placement, row in rows.items())
