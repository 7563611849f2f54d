"""What a training step of LeTS holds: states to the byte, one tensor of each weight at most within a step, and the closed forms."""

from functools import cache

import pytest
import torch

from paperlib import backbones
from paperlib.lets import training_memory
from paperlib.lets.architecture import Architecture, Task
from paperlib.lets.comparisons import pretrained
from paperlib.lets.frozen_pass import FrozenEncoder
from paperlib.lets.training_memory import FULL, Setting, bytes_per_weight, spread

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's allocator rounds sizes up")

K = 0.05
SLACK = 1024  # step counts of the optimizer and the like


@cache
def setting():
    return Setting(backbones.load("tiny-bert", 2, seed=0), batch_size=4, length=16, k=K)


@cache
def found():
    return training_memory.footprints(setting())


@cache
def sub_task(architecture):
    """Scalars by part of the sub-task's dense form."""
    return Task(FrozenEncoder(setting().backbone.model), architecture, 2).sizes()


def whole():
    return sum(weight.numel() for weight in setting().backbone.model.parameters())


def frozen():
    """Bytes of the frozen model, with its position and segment ids."""
    return 4 * whole() + buffers()


def buffers():
    return sum(buffer.nbytes for buffer in setting().backbone.model.buffers())


def test_full_fine_tuning_keeps_twelve_bytes_a_weight_and_has_four_of_gradients():
    full = found()[FULL]
    assert full.trained == 4 * whole() and full.moments == 8 * whole()
    assert full.untrained == pytest.approx(buffers(), abs=SLACK)
    assert full.peak >= full.kept + full.trained


@pytest.mark.parametrize(
    "name, architecture",
    [
        ("LeTS: masked, all own", Architecture.all_own(2)),
        ("LeTS: masked, bottom 1 of 2 shared", Architecture.freeze_bottom(2, 1)),
        ("LeTS: masked, attention on the shared input", Architecture(((False, True, False),) * 2)),
    ],
)
def test_masked_tuning_keeps_the_frozen_model_and_twenty_four_bytes_a_kept_offset(name, architecture):
    sizes, each = sub_task(architecture), found()[name]
    rest = sum(sizes.values()) - sizes["offsets"]
    # Every matrix keeps a whole number of its entries.
    assert each.trained == pytest.approx(4 * (K * sizes["offsets"] + rest), rel=0.01)
    # Places, and the values they started at.
    assert each.untrained == pytest.approx(frozen() + 8 * K * sizes["offsets"], rel=0, abs=SLACK)


def test_search_and_warm_up_train_dense_offsets_beside_the_frozen_model():
    dense = 4 * sum(sub_task(Architecture.all_own(2)).values())
    alpha = 2 * 3 * 2 * 8
    warm_up, search = found()["LeTS: warm-up of Delta-pruning, dense"], found()["LeTS: search"]
    assert (warm_up.trained, search.trained) == (dense, dense + alpha)
    for each in (warm_up, search):
        assert each.untrained == pytest.approx(frozen(), rel=0, abs=SLACK)


def test_a_search_holds_a_copy_of_the_weights_while_they_are_moved():
    search, warm_up = found()["LeTS: search"], found()["LeTS: warm-up of Delta-pruning, dense"]
    assert search.passing - warm_up.passing >= warm_up.trained


def test_diff_pruning_keeps_the_weights_and_two_trained_tensors_of_each():
    model = setting().backbone.model
    body = sum(weight.numel() for weight in pretrained(model).values())
    finding, fixed = (found()[f"DiffPruning: {phase}"] for phase in ("finding the mask", "fixed mask"))
    assert finding.trained == 4 * (whole() + body)
    assert finding.untrained == pytest.approx(4 * body + buffers(), rel=0, abs=SLACK)
    assert fixed.trained == 4 * whole()
    assert fixed.untrained == pytest.approx(4 * (1 + 2 * K) * body + buffers(), rel=0, abs=SLACK)


def test_adapters_train_little_beside_the_frozen_model():
    adapters = found()["adapters"]
    assert adapters.trained < 0.05 * found()[FULL].trained and adapters.peak < found()[FULL].peak


def test_the_backbone_stays_as_it_was():
    model = setting().backbone.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for make in setting().makers().values():
        make().step(torch.arange(4).numpy())
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_backbone_that_a_sub_task_has_frozen_is_trained_whole_all_the_same():
    frozen_before = Setting(backbones.load("tiny-bert", 2, seed=0), batch_size=4, length=16)
    FrozenEncoder(frozen_before.backbone.model)
    trained = frozen_before.makers()[FULL]().trained
    assert sum(tensor.numel() for tensor in trained) == whole()


def test_kept_places_are_spread_and_as_many_as_the_share_says():
    offset = spread(torch.zeros(30, 20), 0.005)
    assert offset.indices.tolist() == [0, 200, 400] and offset.nbytes == 8 * 3
    assert len(spread(torch.zeros(4), 0.005).values) == 1
    assert len(spread(torch.zeros(4), 1.0).values) == 4


def test_closed_forms_add_up_to_the_specified_bytes():
    totals = {name: sum(parts.values()) for name, parts in bytes_per_weight(0.005).items()}
    assert [*totals.values()] == pytest.approx([16, 20, 21, 4.12, 36, 20.04])
    assert {tuple(parts) for parts in bytes_per_weight(K).values()} == {
        ("frozen", "trained", "gradients", "moments", "mask")
    }


def test_closed_forms_are_what_is_measured():
    """Per weight of the layers' matrices, the rest taken away: 16 bytes of what is trained whole, 4 of what is frozen."""
    forms = {name: sum(parts.values()) for name, parts in bytes_per_weight(K).items()}
    sizes = sub_task(Architecture.all_own(2))
    masked, dense = found()["LeTS: masked, all own"], found()["LeTS: warm-up of Delta-pruning, dense"]
    rest = 16 * (sum(sizes.values()) - sizes["offsets"])
    for each, form in (
        (masked, "kept offsets alone (masked tuning here)"),
        (dense, "dense offsets (warm-up and search here)"),
    ):
        states = each.kept + each.trained - rest - (frozen() - 4 * sizes["offsets"])
        assert states == pytest.approx(forms[form] * sizes["offsets"], rel=0, abs=SLACK)
