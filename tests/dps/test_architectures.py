"""Every method on every architecture: stages, mixing, accumulation, bf16, and runs that end and go on."""

import math
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from paperlib.dps.methods import Choice, build
from paperlib.dps.scope import tracked
from paperlib.dps.subnetwork import Subnetwork
from paperlib.training import Loop, Settings
from paperlib.training.checkpoint import NAME

ARCHITECTURES = ["bert", "roberta", "electra", "deberta", "bart", "t5"]
SIMPLE = [
    "vanilla",
    "mixout",
    "r3f",
    "r_dropout",
    "re_init",
    "child_tuning_d",
    "child_tuning_f",
    "dps_dense",
    "dps_mix",
]
JOINED = ["r_dropout+dps_mix", "r3f+dps_dense", "re_init+mixout"]
# p is low enough for Mixout and CHILD-TUNING to train much, and neither a half nor its own complement.
CHOICES = {name: Choice(name, p=0.3, update_ratio=0.5, sigma=1e-2) for name in SIMPLE + JOINED}
CHOICES |= {f"{name} as in the text": replace(CHOICES[name], preset="paper") for name in ("dps_dense", "dps_mix")}
# Methods that draw nothing within a forward pass: what a pass sees does not depend on how the rows are cut.
UNDRAWN = ["vanilla", "re_init", "child_tuning_d", "dps_dense as in the text", "dps_mix as in the text"]
STEPS = 6


@pytest.fixture(params=ARCHITECTURES)
def backbone(request):
    return f"tiny-{request.param}"


@pytest.fixture(params=CHOICES)
def choice(request):
    return CHOICES[request.param]


@pytest.fixture
def six_steps(make_problem, make_settings):
    """``six_steps(backbone, choice)``: a loop of an epoch and a half; DPS has three steps of each stage, which ends before the epoch does."""

    def make(backbone, choice, folder=None, dropout=0.1, **changed):
        problem = make_problem("rte", backbone, train=8, test=1, dropout=dropout)
        given = {"steps": STEPS, "batch_size": 2, "learning_rate": 1e-3, "warmup_ratio": 0.0} | changed
        return Loop(problem, build(choice), make_settings(**given), folder)

    return make


def parts(method):
    return getattr(method, "methods", (method,))


def weights(loop):
    return {name: parameter.detach().clone() for name, parameter in loop.model.named_parameters()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- training


def test_every_method_trains_every_architecture(six_steps, backbone, choice):
    loop = six_steps(backbone, choice)
    before = weights(loop)
    outcome = loop.run()
    assert len(outcome.losses) == STEPS and np.isfinite(outcome.losses).all() and outcome.skipped_steps == 0
    after = weights(loop)
    assert all(torch.isfinite(weight).all() for weight in after.values())
    assert not [name for name in tracked(loop.model) if torch.equal(before[name], after[name])]
    for method in parts(loop.method):
        if isinstance(method, Subnetwork):
            every_matrix_has_its_subnetwork(method, loop.model)


def every_matrix_has_its_subnetwork(method, model):
    """The last stage is a second one."""
    assert method.mask.keys() == tracked(model).keys()
    for name, mask in method.mask.items():
        asked = math.ceil(mask.numel() * method.keep_fraction)
        # Columns that were never active, and words that were never read, tie at 0.
        assert asked <= int(mask.sum()) <= asked + 1 or mask.all(), name
    assert not all(mask.all() for mask in method.mask.values())


def test_frozen_entries_are_not_pulled_to_the_start_either(six_steps, backbone):
    """Every option that moves weights: decay toward pre-trained ones, rates by layer."""
    loop = six_steps(
        backbone, CHOICES["dps_mix as in the text"], decay_towards="pretrained", weight_decay=0.9, layer_decay=0.9
    )
    method, seen = loop.method, []
    after_step = method.after_step

    def watched(step, optimizer):
        after_step(step, optimizer)
        seen.append({name: weight.detach().clone() for name, weight in method.weights.items()})

    method.after_step = watched
    loop.run()
    for name, mask in method.mask.items():
        assert torch.equal(seen[2][name][~mask], seen[-1][name][~mask]), name
        assert (seen[2][name][mask] != seen[-1][name][mask]).float().mean() > 0.9, name


# --- mixing


def exact(problem):
    """The problem in double precision up to its logits, which are fp32 in training."""
    problem.model.double()

    def logits(batch):
        inputs = {k: v for k, v in batch.items() if k != "labels" or problem.backbone.text_to_text}
        return problem.model(**inputs).logits

    problem.logits = logits
    return problem


def loss_at(loop, step):
    """The loss of one row, the same draws every time, in step ``step``."""
    torch.manual_seed(1)
    batch = loop.problem.batch(loop.problem.train, np.arange(1))
    with loop.method.forward_weights(step):
        return loop.method.loss(loop.problem, batch).item()


def reached(loop, step, others):
    """Names of the weights for which the loss depends on ``others[name]``, the values they are mixed with."""
    found, before = set(), loss_at(loop, step)
    for name, value in others.items():
        others[name] = value + torch.randn(value.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        if loss_at(loop, step) != before:
            found.add(name)
        others[name] = value
    assert loss_at(loop, step) == before
    return found


def in_double(problem, name):
    return Loop(exact(problem), build(CHOICES[name]), Settings(1, 3, 1e-3, seed=0, steps=2, precision="fp32"))


def test_mixout_reaches_every_tracked_weight(make_problem, backbone):
    loop = in_double(make_problem("rte", backbone, dropout=0.0), "mixout")
    assert reached(loop, 1, loop.method.start) == tracked(loop.model).keys()


def test_dps_mix_reaches_every_tracked_weight_in_both_stages(make_problem, backbone):
    """The snapshot in stage II, where what the weights were before training has no part any more."""
    loop = in_double(make_problem("rte", backbone, dropout=0.0), "dps_mix")
    assert reached(loop, 1, loop.method.start) == tracked(loop.model).keys()
    for _ in range(2):
        loop.step([np.arange(3)])
    assert reached(loop, 2, loop.method.snapshot) == tracked(loop.model).keys()
    assert not reached(loop, 2, loop.method.start)


# --- gradient accumulation


@pytest.mark.parametrize(
    "backbone, name",
    [(f"tiny-{each}", name) for each in ARCHITECTURES for name in ("dps_dense", "dps_mix")]
    + [(f"tiny-{each}", name) for each in ("bert", "t5") for name in UNDRAWN],
)
def test_two_micro_batches_are_one_of_twice_the_size(make_problem, make_settings, backbone, name):
    """Losses and weights over both stages. Three classes: the gradients of two are each other's negatives, and tie but for rounding."""
    found = []
    for cuts in ([], [2]):
        problem = exact(make_problem("mnli", backbone, train=12, test=1, dropout=0.0))
        loop = Loop(problem, build(CHOICES[name]), make_settings(steps=4, warmup_ratio=0.0))
        for step in range(4):
            loop.step(np.split((np.arange(6) + 5 * step) % 12, cuts))
        found.append((loop.state["losses"], weights(loop)))
    (one_losses, one), (other_losses, other) = found
    np.testing.assert_allclose(one_losses, other_losses, rtol=1e-12)
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=0, atol=1e-10, msg=key)


# --- bf16


@pytest.mark.parametrize(
    "backbone, name",
    [(f"tiny-{each}", "r_dropout+dps_mix") for each in ARCHITECTURES]
    + [(f"tiny-{each}", name) for each in ("bert", "t5") for name in ("mixout", "dps_dense as in the text")],
)
def test_bf16_follows_fp32_and_leaves_weights_and_state_wide(six_steps, backbone, name):
    exactly, roughly = (six_steps(backbone, CHOICES[name], precision=precision) for precision in ("fp32", "bf16"))
    np.testing.assert_allclose(roughly.run().losses, exactly.run().losses, rtol=0.02)
    assert not same(weights(roughly), weights(exactly))
    held = [*weights(roughly).values(), *(m for state in roughly.optimizer.state.values() for m in state.values())]
    assert {tensor.dtype for tensor in held} == {torch.float32}
    floating = {t.dtype for t in roughly.method.state_dict().values() if t.is_floating_point()}
    assert floating <= {torch.float32}


# --- killed and resumed


def checkpoints(six_steps, backbone, choice, folder, kills, **changed):
    """The whole run: folders with the checkpoint of before each of the steps ``kills``, losses, final weights."""
    loop, kept = six_steps(backbone, choice, folder, checkpoint_seconds=-1.0, **changed), {}
    forward = loop.method.forward_weights

    def watched(step):
        if step in kills and step not in kept:
            kept[step] = folder / str(step)
            kept[step].mkdir()
            # The next checkpoint is a new file under the same name.
            os.link(folder / NAME, kept[step] / NAME)
        return forward(step)

    loop.method.forward_weights = watched
    outcome = loop.run()
    return kept, outcome.losses, weights(loop)


def goes_on_exactly(six_steps, backbone, choice, folder, kills, **changed):
    kept, losses, final = checkpoints(six_steps, backbone, choice, folder, kills, **changed)
    for step in kills:
        loop = six_steps(backbone, choice, kept[step], **changed)
        assert loop.resumed and loop.state["step"] == step - 1
        assert loop.run().losses == losses, step
        assert same(weights(loop), final), step
    shutil.rmtree(folder)


# Two steps a stage: first, second, first again.
EVERY_TURN = {
    "dps_dense": replace(CHOICES["dps_dense"], update_ratio=0.34),
    "dps_mix as in the text": replace(CHOICES["dps_mix as in the text"], update_ratio=0.34),
    "dps_mix in the published types": replace(CHOICES["dps_mix"], update_ratio=0.34, reference_dtypes=True),
}


@pytest.mark.parametrize("name", EVERY_TURN)
def test_a_kill_before_any_step_changes_nothing(six_steps, tmp_path, name):
    """Bitwise, within stages and between them; two micro-batches a step."""
    folder, kills = tmp_path / "runs", range(2, STEPS + 1)
    goes_on_exactly(six_steps, "tiny-bert", EVERY_TURN[name], folder, kills, accumulation=2)


@pytest.mark.parametrize("backbone", ["tiny-bert", "tiny-t5"])
@pytest.mark.parametrize("name", CHOICES)
def test_a_kill_in_mid_cycle_changes_nothing(six_steps, tmp_path, backbone, name):
    """What attaching draws anew (Mixout's and DPS Mix's start, Re-init's layers, the weights decayed towards) is drawn the same."""
    towards = {"decay_towards": "pretrained", "weight_decay": 0.1, "layer_decay": 0.9}
    goes_on_exactly(six_steps, backbone, CHOICES[name], tmp_path, [5], **towards)
