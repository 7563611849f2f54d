"""The masks of Figure 7 on a tiny model: every kind, compared, and bitwise the same across kills."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from paperlib.errors import InputError
from paperlib.lets import mask_study
from paperlib.lets.architecture import Architecture
from paperlib.lets.mask_study import FINAL, MAGNITUDE, OTHER_BATCH, OTHER_SEED, RANDOM, UNIFORM, Study
from paperlib.lets.masked_tuning import WarmUp, delta_pruned, owned
from paperlib.lets.overlap import Overlap
from paperlib.lets.problem import TaskProblem
from paperlib.lets.readout import ReadoutSizes

WALK = WarmUp(steps=6, batch_size=4, learning_rate=1e-3, precision="fp32")
STUDY = Study(WALK, other_seed=1, accumulated=(3, 5), k=0.05)
KINDS = [RANDOM, FINAL, OTHER_BATCH, MAGNITUDE, OTHER_SEED, UNIFORM]
SHOWN = [f"layers.0.attention.{each}" for each in ("query", "key", "value")]


@pytest.fixture
def problem(make_problem):
    return TaskProblem.whole(make_problem(train=12, dropout=0.2), ReadoutSizes(5, 4))


def same(one, other):
    """Two looks, bit for bit."""
    parts = ((getattr(one, part), getattr(other, part)) for part in ("places", "scores"))
    return all(a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in parts)


@pytest.mark.parametrize(("layers", "index"), [(24, 11), (12, 5), (6, 2), (2, 0), (3, 0)])
def test_the_middle_layer(layers, index):
    assert mask_study.middle(layers) == index
    assert mask_study.watched(layers)[2] == f"layers.{index}.attention.value"


def test_one_layer_has_no_middle():
    with pytest.raises(InputError, match="an encoder of 1 layers has no middle one"):
        mask_study.middle(1)


# --- the study


def test_a_study_holds_every_kind_of_mask(problem):
    outcome = STUDY.run(problem)
    assert list(outcome.looks) == ["3", "5", "5, magnitude", *KINDS]
    shapes = {name: own.offset.weight.shape for name, own in owned(problem.fresh().model).items()}
    entries = sum(shape.numel() for shape in shapes.values())
    for kind, look in outcome.looks.items():
        assert look.kept.keys() == shapes.keys() and sum(look.kept.values()) == round(0.05 * entries), kind
        assert list(look.scores) == SHOWN
        for name in SHOWN:
            mask = look.mask(name)
            assert mask.shape == look.scores[name].shape == shapes[name] and int(mask.sum()) == look.kept[name]
            assert torch.equal(look.columns[name], mask.sum(0))
        kept, dropped = (
            torch.cat([look.scores[name][look.mask(name) == side] for name in SHOWN]) for side in (True, False)
        )
        assert kept.min() >= dropped.max(), "the largest scores are kept"
    assert [len(each) for each in outcome.losses] == [6, 6]
    assert "model" not in vars(problem), "the problem's own sub-task is not even drawn"


def test_a_study_is_a_function_of_its_seeds_and_looks_change_nothing(problem):
    study = replace(STUDY, accumulated=(6,))
    first = study.run(problem)
    torch.rand(3)
    assert same(first.looks["6"], first.looks[FINAL]), "the last step's mask is the final one"
    assert same(first.looks["6, magnitude"], first.looks[MAGNITUDE])
    more = replace(STUDY, accumulated=(1, 2, 6)).run(problem)
    assert all(same(first.looks[kind], more.looks[kind]) for kind in first.looks) and more.losses == first.losses
    assert not same(first.looks[OTHER_SEED], first.looks[FINAL]) and not same(more.looks["1"], more.looks["2"])
    swapped = replace(study, warm_up=replace(WALK, seed=1), other_seed=0).run(problem)
    assert same(swapped.looks[FINAL], first.looks[OTHER_SEED]) and swapped.losses == first.losses[::-1]


def test_another_batch_scores_the_same_offsets(problem):
    """By g = W^d dL/dW: magnitudes of the offsets bound neither, but both are 0 where the offset is."""
    looks = STUDY.run(problem).looks
    assert not same(looks[OTHER_BATCH], looks[FINAL])
    for name in SHOWN:
        still = looks[MAGNITUDE].scores[name] == 0
        assert not looks[FINAL].scores[name][still].any() and not looks[OTHER_BATCH].scores[name][still].any()


def test_the_accumulated_mask_is_that_of_delta_pruning(problem):
    """Where Algorithm 2 is run for as many steps as the study."""
    look = replace(STUDY, accumulated=(6,)).run(problem).looks["6"]
    pruned = delta_pruned(problem, 0.05, WALK)
    assert look.places.keys() == pruned.keys()
    for name, places in look.places.items():
        assert torch.equal(pruned[name].indices.long(), places.long())


def test_the_random_offset_has_the_size_of_the_accumulated_one(problem, monkeypatch):
    """Its scores are |W^d dL/dW| under a fresh sub-task: normal offsets of the last look's mean square."""
    seen = []
    whole = WarmUp.mask_gradients

    def watching(warm_up, scored, look=0):
        seen.append({name: own.offset.weight.detach().clone() for name, own in owned(scored.model).items()})
        return whole(warm_up, scored, look)

    monkeypatch.setattr(WarmUp, "mask_gradients", watching)
    STUDY.run(problem)
    accumulated, random = (torch.cat([w.flatten() for w in offsets.values()]).double() for offsets in seen[1:3])
    assert random.square().mean().sqrt().item() == pytest.approx(accumulated.square().mean().sqrt().item(), rel=0.05)
    assert abs(random.mean()) < 0.05 * random.std()


def test_masks_of_each_matrix_alone(problem):
    looks = replace(STUDY, per_matrix=True).run(problem).looks
    assert all(look.kept[name] == round(0.05 * 32 * 32) for look in looks.values() for name in SHOWN)


# --- compared


def test_the_table_compares_with_the_final_mask(problem):
    looks = replace(STUDY, accumulated=(3, 5, 6), per_matrix=True).run(problem).looks
    rows = mask_study.table(looks, FINAL)
    assert len(rows) == (len(looks) - 1) * 5
    by = {(row["mask"], row["matrix"]): row for row in rows}
    assert by["6", "all"]["fraction"] == by["6", "all"]["spearman"] == by["6", "encoder"]["iou"] == 1
    assert by["5", "encoder"]["z"] > 8 > abs(by[UNIFORM, "encoder"]["z"])
    for kind in looks.keys() - {FINAL}:
        parts = [by[kind, matrix] for matrix in mask_study.MATRICES]
        for column in ("shared", "entries", "expected_in_columns"):
            assert sum(part[column] for part in parts) == pytest.approx(by[kind, "all"][column])


def test_overlaps_are_those_of_the_masks(problem):
    looks = STUDY.run(problem).looks
    rows = {(row["mask"], row["matrix"]): row for row in mask_study.table(looks, OTHER_BATCH)}
    for part, names in {"query": SHOWN[:1], "all": SHOWN, "encoder": [*looks[FINAL].places]}.items():
        one, other = ({name: looks[kind].mask(name) for name in names} for kind in (OTHER_BATCH, "3"))
        found = vars(Overlap.of(one, other))
        assert {name: rows["3", part][name] for name in found} == found | {"kept": list(found["kept"])}


def test_results_are_plain_json(problem):
    outcome = STUDY.run(problem)
    results = outcome.results()
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert results["shapes"] == dict.fromkeys(mask_study.MATRICES, [32, 32])
    assert sum(results["kept"]["3"].values()) == round(0.05 * sum(results["entries"].values()))
    assert results["places"]["3"]["key"] == outcome.looks["3"].places[SHOWN[1]].tolist()
    assert {row["against"] for row in results["overlaps"]} == {FINAL, OTHER_BATCH, MAGNITUDE}
    assert results["losses"] == outcome.losses


# --- killed and resumed


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def remembered():
    return {}


# Of 2 x 6 losses of steps, and one of every look: after steps 3 and 5, random, two at the end, one of the other seed.
@pytest.mark.parametrize(
    ("optimizer", "kills"), [("adam", (4, 6)), ("adam", (9,)), ("adam", (11,)), ("adam", (14, 4)), ("sgd", (7, 9))]
)
def test_a_killed_study_goes_on_as_if_nothing_had_been(problem, remembered, tmp_path, monkeypatch, kills, optimizer):
    study = replace(STUDY, warm_up=replace(WALK, optimizer=optimizer), checkpoint_seconds=-1.0)
    if optimizer not in remembered:
        remembered[optimizer] = study.run(problem)
    whole, loss = remembered[optimizer], WarmUp._loss
    for at in kills:
        calls = iter(range(1, 100))

        def dying(*given, calls=calls, at=at):
            if next(calls) == at:
                raise Killed
            return loss(*given)

        monkeypatch.setattr(WarmUp, "_loss", dying)
        with pytest.raises(Killed):
            study.run(problem, tmp_path)
    monkeypatch.setattr(WarmUp, "_loss", loss)
    again = study.run(problem, tmp_path)
    assert again.losses == whole.losses and list(again.looks) == list(whole.looks)
    assert all(same(again.looks[kind], whole.looks[kind]) for kind in whole.looks)
    assert again.results() == whole.results()


def test_a_finished_step_is_not_taken_again(problem, tmp_path, monkeypatch):
    replace(STUDY, checkpoint_seconds=-1.0).run(problem, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    frozen = [name for name in load_file(tmp_path / "checkpoint.safetensors") if "frozen" in name]
    assert not frozen, "a checkpoint holds what is trained"
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_: pytest.fail("a step was taken again"))
    assert list(STUDY.run(problem, tmp_path).looks) == ["3", "5", "5, magnitude", *KINDS]


# --- bad input


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"accumulated": (7,)}, r"looks after \[7\] of 6 steps"),
        ({"accumulated": ()}, r"looks after \[\] of 6 steps"),
        ({"accumulated": (0,)}, "give steps from 1"),
        ({"other_seed": 0}, "seed 0 twice"),
    ],
)
def test_a_study_that_says_nothing_is_refused(changed, told):
    with pytest.raises(InputError, match=told):
        replace(STUDY, **changed)


def test_a_study_needs_the_figure_s_matrices(problem):
    with pytest.raises(InputError, match="does not own layers.0.attention.key; give TaskProblem.whole"):
        STUDY.run(problem.fresh(Architecture.freeze_bottom(2, 1)))


@pytest.mark.parametrize("k", [0.0, 1.5, 1e-9])
def test_the_share_is_checked_before_a_step(problem, k, monkeypatch):
    monkeypatch.setattr(WarmUp, "walk", lambda *_: pytest.fail("a walk for nothing"))
    with pytest.raises(InputError, match="delta-pruning: "):
        replace(STUDY, k=k).run(problem)
