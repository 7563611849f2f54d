"""What a search step costs: the right things are timed, and counted bytes are what the tensors hold."""

import gc
import time
import weakref

import pytest
import torch

from paperlib import backbones
from paperlib.s3delta import search_cost, structure
from paperlib.s3delta.positions import candidates
from paperlib.s3delta.search_cost import PASSES, SPACE, STRUCTURES, Setting


@pytest.fixture(scope="module")
def backbone():
    return backbones.load("tiny-bert", 2, seed=0)


@pytest.fixture
def setting(backbone):
    """With a budget of 1000 scalars."""
    share = 1e4 * 1000 / structure.budget(backbone.model, 1e4)
    return Setting(budget=share, batch_size=2, length=8, precision="fp32", seed=0)


def passes(step, monkeypatch):
    """Backward passes that one call of ``step`` makes."""
    made = []
    grad, backward = torch.autograd.grad, torch.Tensor.backward

    def counted_grad(outputs, inputs, *given, **named):
        # The gates' own small graph, from z to alpha, is none.
        made.append(outputs.dim() == 0) if isinstance(outputs, torch.Tensor) else made.append(True)
        return grad(outputs, inputs, *given, **named)

    monkeypatch.setattr(torch.autograd, "grad", counted_grad)
    monkeypatch.setattr(
        torch.Tensor, "backward", lambda *given, **named: (made.append(True), backward(*given, **named))
    )
    step()
    return sum(made)


@pytest.mark.parametrize("order", PASSES)
def test_a_search_step_makes_as_many_passes_as_the_floor_says(backbone, setting, order, monkeypatch):
    step = setting.searching(backbone, candidates(backbone.model, SPACE), order)
    assert passes(step, monkeypatch) == PASSES[order]


@pytest.mark.parametrize("placement", ["random", "lowest", "bitfit", "lora_r8", "fine_tuning"])
def test_a_training_step_makes_one(backbone, setting, placement, monkeypatch):
    assert passes(setting.training(backbone, placement), monkeypatch) == 1


def test_the_backbone_stays_as_it_was(backbone, setting):
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    for step in (
        setting.searching(backbone, candidates(backbone.model, SPACE), "second"),
        setting.training(backbone, "fine_tuning"),
        setting.answering(backbone, "random", merged=True),
    ):
        step()
    after = backbone.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_fill_the_budget(backbone, setting, name):
    found = setting.structure(backbone, name)
    sizes = {position.name: position.size(backbone.model) for position in candidates(backbone.model, SPACE)}
    budget = structure.budget(backbone.model, setting.budget)
    left = budget - sum(sizes[each] for each in found.chosen)
    assert 0 <= left < min(size for each, size in sizes.items() if each not in found.chosen)


def test_the_lowest_structure_is_the_beginning_of_the_space(backbone, setting):
    names = [position.name for position in candidates(backbone.model, SPACE)]
    chosen = setting.structure(backbone, "lowest").chosen
    assert chosen[0] == names[0] and [*chosen] == sorted(chosen, key=names.index)


def test_parts_are_the_space_by_type(backbone):
    found = search_cost.parts(backbone.model)
    assert set(found) == {"lora", "bitfit", "lnfit", "lra"}
    assert all(position.type == type for type, positions in found.items() for position in positions)
    assert sum(map(len, found.values())) == len(candidates(backbone.model, SPACE))


def test_a_small_part_can_be_searched_though_it_holds_less_than_the_budget(backbone, setting):
    part = search_cost.parts(backbone.model)["lnfit"]
    setting.searching(backbone, part, "one-level")()


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU the model itself is on the device only once")
def test_the_peak_counts_every_tensor_of_a_contestant():
    held = []

    def make():
        held.append(torch.ones(1 << 18))
        return lambda: torch.ones(1 << 19).sum()

    found = search_cost.contestants({"one": make})["one"]
    assert 4 * (1 << 18) + 4 * (1 << 19) <= found.peak < 4 * (1 << 18) + 4 * (1 << 19) + 4096


def test_full_fine_tuning_holds_gradients_and_moments_that_bitfit_does_not(backbone, setting):
    found = search_cost.contestants({n: lambda n=n: setting.training(backbone, n) for n in ("bitfit", "fine_tuning")})
    weights = sum(parameter.nbytes for parameter in backbone.model.parameters())
    extra = found["fine_tuning"].peak - found["bitfit"].peak
    assert 2.5 * weights < extra < 4.5 * weights


def test_resident_growth_sees_what_a_step_touches():
    growth = search_cost._resident_growth(lambda: torch.ones(1 << 24).sum())
    assert growth is None or 0.9 * (1 << 26) < growth < 1.5 * (1 << 26)


def test_contestants_take_turns_and_ratios_are_round_by_round():
    order = []
    makers = {name: lambda name=name: lambda: order.append(name) or time.sleep(0.001) for name in "ab"}
    found = search_cost.contestants(makers)
    order.clear()
    search_cost.interleaved(found, 3)
    assert order == [*"ababab"]
    found["a"].seconds, found["b"].seconds = [2.0, 6.0, 9.0], [1.0, 2.0, 3.0]
    assert search_cost.ratios(found, "b")["a"] == [2.0, 3.0, 3.0] and found["a"].median == 6.0


def test_what_is_let_go_of_is_freed_and_what_it_cost_stays(backbone, setting):
    found = search_cost.contestants({"one": lambda: setting.training(backbone, "bitfit")})
    model = weakref.ref(found["one"].step.func.__self__.model)
    search_cost.interleaved(found, 1)
    search_cost.let_go(found)
    gc.collect()
    assert model() is None and found["one"].peak > 0 and found["one"].median > 0


@pytest.mark.parametrize("merged", [False, True])
def test_a_forward_pass_leaves_the_model_evaluating_and_answers_like_the_plain_one(backbone, setting, merged):
    plain, with_modules = setting.answering(backbone, None), setting.answering(backbone, "lora_r8", merged)
    logits = [step.args[0].logits(step.args[1]) for step in (plain, with_modules)]
    assert not with_modules.args[0].model.training
    # Fresh LoRA modules are the zero map.
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-6)
