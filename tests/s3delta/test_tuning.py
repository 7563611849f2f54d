"""Delta tuning through the real loop: what moves, what is counted, and runs that go on after a kill."""

import pytest
import torch

from paperlib.errors import InputError
from paperlib.s3delta.positions import BASELINES, candidates
from paperlib.s3delta.structure import Structure, budget
from paperlib.s3delta.supernet import head
from paperlib.s3delta.tuning import DeltaTuning, placed
from paperlib.training import Loop

BACKBONES = ["tiny-bert", "tiny-t5"]


def everything(problem):
    """A structure of the whole space M."""
    model = problem.model
    return Structure.greedy("tiny", model, "M", [0.5] * len(candidates(model, "M")), 1e9)


def snapshot(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def moved(before, after):
    return {name for name in after if name not in before or not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_only_deltas_and_the_head_move(make_problem, make_settings, backbone):
    """And all of them do, but biases of keys, whose gradient is 0: in exact arithmetic, so they move by rounding alone or not at all."""
    problem = make_problem(backbone=backbone)
    before, kept = snapshot(problem.model), everything(problem)
    heads = {*head(problem.model)}
    method = DeltaTuning(kept)
    outcome = Loop(problem, method, make_settings(epochs=2, warmup_ratio=0.0, weight_decay=0.0)).run()
    after = snapshot(problem.model)
    assert moved(before, {name: after[name] for name in before}) == heads
    assert {name for name in after if name not in before} == {
        f"{position.path}.delta_{position.type}.{key}"
        for position, delta in zip(method.supernet.positions, method.supernet.deltas, strict=True)
        for key, _ in delta.named_parameters()
    }
    for position, delta in zip(method.supernet.positions, method.supernet.deltas, strict=True):
        fresh = {"lora": "B", "bitfit": "b", "lnfit": "s", "lra": "c2"}[position.type]
        assert position.row == "K BitFit" or getattr(delta, fresh).abs().max() > 1e-5, position.name
    assert outcome.skipped_steps == 0 and len(outcome.losses) == 6


@pytest.mark.parametrize("backbone", BACKBONES)
def test_delta_tuning_learns(make_problem, make_settings, backbone):
    problem = make_problem(backbone=backbone, train=8, dropout=0.0)
    kept = everything(problem)
    outcome = Loop(problem, DeltaTuning(kept), make_settings(epochs=40, batch_size=8, learning_rate=2e-2)).run()
    assert outcome.losses[-1] < 0.9 * outcome.losses[0]


@pytest.mark.parametrize("placement", [*BASELINES, "fine_tuning"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_baseline_trains_what_it_says(make_problem, make_settings, backbone, placement):
    problem = make_problem(backbone=backbone)
    before, heads = snapshot(problem.model), {*head(problem.model)}
    method = DeltaTuning(placement)
    Loop(problem, method, make_settings(epochs=1, warmup_ratio=0.0)).run()
    changed = moved(before, snapshot(problem.model))
    if placement == "fine_tuning":
        assert method.numel == sum(t.numel() for name, t in before.items() if name not in heads)
        assert changed & set(before) - heads
    else:
        assert changed & set(before) == heads
        assert method.numel == sum(p.numel() for p in problem.model.parameters() if p.requires_grad) - method.head_numel
    assert method.head_numel == sum(before[name].numel() for name in heads)


class Killed(Exception):
    pass


def dying(moment, at):
    calls = 0

    def call(*args):
        nonlocal calls
        calls += 1
        if calls == at:
            raise Killed
        return moment(*args)

    return call


@pytest.mark.parametrize("placement", ["structure", "adapter", "lora_r8"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_killed_run_goes_on_as_if_nothing_had_been(make_problem, make_settings, tmp_path, backbone, placement):
    """Dropout on, a validation after every epoch, killed in the middle of the second; also when it starts anew, its draws are the same."""

    def start(folder):
        problem = make_problem(backbone=backbone, validation=4, dropout=0.2)
        method = DeltaTuning(everything(problem) if placement == "structure" else placement)
        return problem, method, lambda: Loop(problem, method, make_settings(checkpoint_seconds=-1.0), tmp_path / folder)

    problem, _, loop = start("whole")
    whole = loop().run()
    cut, method, loop = start("cut")
    method.after_step = dying(method.after_step, 5)
    with pytest.raises(Killed):
        loop().run()
    again, _, loop = start("cut")
    resumed = loop()
    assert resumed.resumed and resumed.state["step"] == 4
    assert resumed.run().results(again) == whole.results(problem)
    assert not moved(snapshot(problem.model), snapshot(again.model))


def test_retraining_draws_fresh_modules_from_its_seed(make_problem, make_settings):
    def drawn(seed):
        problem = make_problem()
        method = DeltaTuning("lora_r1")
        Loop(problem, method, make_settings(seed=seed))
        return method.supernet.deltas[0].A.detach()

    assert torch.equal(drawn(0), drawn(0)) and not torch.equal(drawn(0), drawn(1))


SHARE = 100.0  # delta parameters per ten thousand of a tiny backbone's


def place(placement, model, searched=(), backbone="tiny-bert", seed=0):
    return placed(placement, model, backbone, "M", SHARE, seed, searched)


def test_a_placement_is_a_structure_or_a_name(small_model):
    model = small_model("tiny-bert")
    allowed = budget(model, SHARE)
    names = [each.name for each in candidates(model, "M")]
    one, other = (
        Structure.greedy("tiny-bert", model, "M", p, allowed) for p in ([0.2] * 36, [i / 100 for i in range(36)])
    )
    assert len(names) == 36 and place("bitfit", model) == "bitfit"
    assert (
        place("random", model)
        == Structure.random("tiny-bert", model, "M", allowed, 0)
        != place("random", model, seed=1)
    )
    assert place("searched", model, [one]) is one
    assert place("searched", model, [one, other]) == Structure.average([one, other], model)


def test_a_searched_structure_is_of_the_same_backbone(small_model):
    model = small_model("tiny-bert")
    found = Structure.greedy("tiny-bert", model, "M", [0.2] * 36, 1000)
    with pytest.raises(InputError, match="searched for backbone 'tiny-bert' does not fit 'tiny-t5'"):
        place("searched", model, [found], backbone="tiny-t5")


def test_unknown_baselines_and_structures_of_other_models_are_refused(make_problem, make_settings):
    with pytest.raises(InputError, match="unknown baseline 'prefix'; known: fine_tuning, adapter"):
        DeltaTuning("prefix")
    kept = everything(make_problem(backbone="tiny-t5"))
    with pytest.raises(InputError, match="positions that this model does not have"):
        Loop(make_problem(), DeltaTuning(kept), make_settings())


@pytest.mark.parametrize("placement", ["structure", "adapter"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_autocast_trains_too(make_problem, make_settings, backbone, placement):
    """Parameters and their gradients stay in single precision; losses are those of fp32 to the precision of bf16."""
    found = {}
    for precision in ("fp32", "bf16"):
        problem = make_problem(backbone=backbone, dropout=0.0)
        method = DeltaTuning(everything(problem) if placement == "structure" else placement)
        told = make_settings(precision=precision, epochs=1, warmup_ratio=0.0)
        found[precision] = Loop(problem, method, told).run()
        assert {parameter.dtype for parameter in problem.model.parameters()} == {torch.float32}
    assert found["bf16"].losses == pytest.approx(found["fp32"].losses, rel=0.02)
    assert found["bf16"].skipped_steps == 0
