"""The optimizer's one pass against torch's operators in turn: whole small trainings, forced onto it on the CPU."""

import math
import sys
import weakref
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from paperlib.dps import mix, mixout
from paperlib.dps.methods import Choice, build
from paperlib.dps.mixing import Draws
from paperlib.kernels import adamw, triton_path
from paperlib.kernels.packing import as_flags
from paperlib.training import Loop, Method, one_pass, update
from paperlib.training.in_turn import InTurn
from paperlib.training.one_pass import OnePass
from paperlib.training.optimizer import adamw as adamw_of

STEPS = 6
RATE = 1e-3
# A hundredth of a step: half a unit in the last place of the first weights alone carries a training in turn 0.2 % of one away in eight steps, as
# Adam divides rounding by gradients as small as eps.
WEIGHTS = {"rtol": 1e-5, "atol": 1e-2 * RATE}
MOMENTS = {"rtol": 1e-3, "atol": 1e-7}


@pytest.fixture
def path(monkeypatch):
    """``path(name)``: which way steps go from here on: "in turn", "one pass" in plain PyTorch, or "interpreted" by Triton."""

    def choose(name):
        monkeypatch.setattr(update, "taken_by", lambda tensor: name != "in turn")
        for module in (adamw, triton_path):
            monkeypatch.setattr(module, "taken_by", lambda tensor: name == "interpreted")

    return choose


class NumberedMix(mix.DPSMix):
    """DPS Mix whose draws are those of the one pass, as flags."""

    def attach(self, model, total_steps):
        super().attach(model, total_steps)
        if self._draws is None:
            self.numbered = Draws(self.weights, 1 - self.keep_fraction)
            self._draw = lambda step: {
                name: self.numbered.of(name, step).gate(weight.shape[1]) for name, weight in self.weights.items()
            }


class NumberedMixout(mixout.Mixout):
    """Mixout likewise."""

    def attach(self, model, total_steps):
        super().attach(model, total_steps)
        if self._draws is None:
            self.numbered = Draws(self.weights, self.p)

    def _gate(self, name):
        if self._draws is None:
            turn = self._turns[name]
            self._turns[name] += 1
            return self.numbered.of(name, self._step, turn).gate(self.weights[name].shape[1])
        return super()._gate(name)


NUMBERED = {mix.DPSMix: NumberedMix, mixout.Mixout: NumberedMixout}


def made(choice):
    method = build(choice)
    method.__class__ = NUMBERED.get(type(method), type(method))
    return method


def looped(make_problem, make_settings, method, folder=None, lost=(), **changed):
    """A loop of ``STEPS`` steps, those among ``lost`` with a loss that is not finite."""
    told = make_settings(steps=STEPS, learning_rate=RATE, **({"warmup_ratio": 0.0} | changed))
    # Of two classes the gradients are each other's negatives, so that ranks would tie but for rounding.
    problem = make_problem("mnli", train=14, dropout=0.0)
    # All but a few of a tiny model's weights are there, and nothing is theirs alone.
    problem.model.get_input_embeddings().requires_grad_(False)
    loop = Loop(problem, method, told, folder)
    loss, forward, now = loop.method.loss, loop.method.forward_weights, []

    def forward_weights(step):
        now[:] = [step]
        return forward(step)

    def sometimes_infinite(problem, batch):
        return loss(problem, batch) * (math.inf if now[0] in lost else 1)

    loop.method.forward_weights, loop.method.loss = forward_weights, sometimes_infinite
    return loop


def everything(loop):
    """Weights, moments and masks by name; a key's bias has a gradient of nothing but rounding, and is left out."""
    names = [name for name in loop.optimizer.named if not name.endswith("key.bias")]
    named = {name: loop.optimizer.named[name] for name in names}
    weights = {name: parameter.detach().clone() for name, parameter in named.items()}
    state = {name: loop.optimizer.state.get(parameter, {}) for name, parameter in named.items()}
    moments = {f"{name}.{key}": each.clone() for name, kinds in state.items() for key, each in kinds.items()}
    steps = {name: int(moments.pop(f"{name}.step")) for name, kinds in state.items() if kinds}
    masks = getattr(loop.method, "mask", {})
    flags = {name: as_flags(masks[name], named[name].shape).bool() for name in masks if name in named}
    return weights, moments, steps, flags


def alike(one, other):
    """Weights and moments to rounding, steps and masks exactly."""
    torch.testing.assert_close(one[0], other[0], **WEIGHTS)
    torch.testing.assert_close(one[1], other[1], **MOMENTS)
    assert one[2] == other[2]
    torch.testing.assert_close(one[3], other[3], rtol=0, atol=0)


def both(path, make_problem, make_settings, method, way="one pass", steps=STEPS, **changed):
    """State after every step on both ways, compared; the loops."""
    loops, traces = [], []
    for name in ("in turn", way):
        path(name)
        loops.append(looped(make_problem, make_settings, method(), **changed))
        traces.append([])
        for _ in range(steps):
            rows = loops[-1]._remaining_of_epoch()[0]
            loops[-1].step(rows)
            traces[-1].append(everything(loops[-1]))
    for expected, found in zip(*traces, strict=True):
        alike(found, expected)
    assert [type(each.optimizer) for each in loops] == [InTurn, OnePass]
    return loops


SETTINGS = {
    "plain": {},
    "layer-wise decay": {"layer_decay": 0.8},
    "decay toward the start": {"decay_towards": "pretrained", "weight_decay": 0.9},
    "clipped": {"clip_norm": 1e-2},
    "accumulated": {"accumulation": 2},
    "a lost step": {"lost": (1, 3)},
    "all of it": {
        "decay_towards": "pretrained",
        "layer_decay": 0.9,
        "clip_norm": 0.1,
        "accumulation": 2,
        "lost": (3,),
        "warmup_ratio": 0.3,
    },
}


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("settings", SETTINGS)
def test_vanilla_training_is_the_same(path, make_problem, make_settings, settings):
    both(path, make_problem, make_settings, Method, **SETTINGS[settings])


LOSING = {"clip_norm": 0.1, "lost": (2, 4)}
# Two steps a stage: a whole cycle, and half of the next.
DPS = {
    f"{method}, {preset}, {selection}": Choice(method, preset, p=0.4, update_ratio=0.34, selection=selection)
    for method in ("dps_dense", "dps_mix")
    for preset in ("reference", "paper")
    for selection in ("matrix", "global")
}
CHOICES = DPS | {
    "dps_dense in the published types": Choice("dps_dense", p=0.4, update_ratio=0.34, reference_dtypes=True),
    "mixout": Choice("mixout", p=0.4),
    "mixout, true gradient": Choice("mixout", "paper", p=0.4),
    "child_tuning_d": Choice("child_tuning_d", p=0.4),
    "child_tuning_f": Choice("child_tuning_f", p=0.4),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_methods_are_the_same(path, make_problem, make_settings, choice):
    """Two micro-batches a step where passes draw, a norm that is clipped, and a lost step in stage I and in stage II."""
    accumulation = 2 if "mix" in choice else 1
    both(path, make_problem, make_settings, lambda: made(CHOICES[choice]), accumulation=accumulation, **LOSING)


@pytest.mark.parametrize("choice", [None, "dps_mix, paper, global", "dps_dense, reference, matrix", "child_tuning_d"])
def test_the_kernels_themselves_do_the_same(path, make_problem, make_settings, choice):
    """Through Triton's interpreter: a stage I, the choice, and a stage II."""
    pytest.importorskip("triton", reason="Triton is not installed")
    if torch.cuda.is_available():
        pytest.skip("the interpreter takes tensors of the CPU")
    method = Method if choice is None else lambda: made(CHOICES[choice])
    both(path, make_problem, make_settings, method, "interpreted", steps=4, clip_norm=0.1)


# --- the same checkpoints


# In stage I, in stage II.
TAKEN = [(None, 3), ("dps_mix, reference, matrix", 1), ("dps_mix, reference, matrix", 3), ("child_tuning_d", 3)]


@pytest.mark.parametrize("choice, taken_after", TAKEN)
@pytest.mark.parametrize("first, then", [("in turn", "one pass"), ("one pass", "in turn"), ("one pass", "one pass")])
def test_what_one_way_saved_the_other_goes_on_with(
    path, make_problem, make_settings, tmp_path, choice, taken_after, first, then
):
    def loop(name, folder):
        path(name)
        method = Method() if choice is None else made(CHOICES[choice])
        return looped(make_problem, make_settings, method, folder, clip_norm=0.1)

    def steps(loop, until):
        while loop.state["step"] < until:
            loop.step(loop._remaining_of_epoch()[0])

    whole, broken = loop(then, None), loop(first, tmp_path)
    steps(whole, STEPS)
    steps(broken, taken_after)
    broken._save()
    resumed = loop(then, tmp_path)
    assert resumed.resumed
    assert resumed.method.state_dict().keys() == broken.method.state_dict().keys()
    steps(resumed, STEPS)
    alike(everything(resumed), everything(whole))
    if first == then:
        pairs = zip(everything(resumed)[0].values(), everything(whole)[0].values(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs), "bitwise where nothing changed"


# --- the pass itself


class Toy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.seen, self.unseen = torch.nn.Linear(5, 3), torch.nn.Linear(4, 3)


def toy(make_settings, path, way="one pass", **changed):
    path(way)
    model = Toy()
    return model, adamw_of(model, make_settings(**changed))


def stepped(model, optimizer, *names, method=None, t=1):
    """One update on gradients of ``names`` alone, and those gradients."""
    torch.manual_seed(t)
    for name, parameter in model.named_parameters():
        parameter.grad = torch.randn_like(parameter) if name in names else None
    optimizer.update(method or Method(), t, 1.0, norm=optimizer.norm())


NAMES = [f"{layer}.{kind}" for layer in ("seen", "unseen") for kind in ("weight", "bias")]


def test_parameters_without_a_gradient_stand_still_and_so_does_their_count(make_settings, path):
    """Some that never had one, and some that go without for a step."""
    found = []
    for way in ("in turn", "one pass"):
        model, optimizer = toy(make_settings, path, way)
        for t, names in enumerate((NAMES[:2], NAMES, NAMES[2:], NAMES[1:3]), start=1):
            before = {name: parameter.clone() for name, parameter in model.named_parameters()}
            stepped(model, optimizer, *names, t=t)
            moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
            assert moved == set(names)
        counts = [int(optimizer.state[parameter]["step"]) for parameter in model.parameters()]
        found.append((counts, [parameter.detach() for parameter in model.parameters()]))
    assert found[0][0] == found[1][0] == [2, 3, 3, 2]
    torch.testing.assert_close(found[1][1], found[0][1])


def test_gradients_stay_as_they_are(make_settings, path):
    model, optimizer = toy(make_settings, path)
    stepped(model, optimizer, *NAMES)
    gradient = model.seen.weight.grad.clone()
    optimizer.update(Method(), 2, 1e-3, norm=optimizer.norm())
    assert torch.equal(model.seen.weight.grad, gradient)


def test_a_method_that_looks_at_clipped_gradients_gets_them(make_settings, path):
    class Looking(Method):
        def after_clipping(self, step, optimizer):
            squares = [parameter.grad.square().sum() for parameter in optimizer.named.values()]
            assert sum(squares).sqrt().item() == pytest.approx(1.0, rel=1e-4)
            optimizer.named["seen.bias"].grad.zero_()

    model, optimizer = toy(make_settings, path, weight_decay=0.0)
    before = model.seen.bias.clone()
    stepped(model, optimizer, *NAMES, method=Looking())
    assert torch.equal(model.seen.bias, before)


def test_a_step_without_a_method_is_adamw(make_settings, path):
    (ours, one), (theirs, other) = (toy(make_settings, path, way) for way in ("one pass", "in turn"))
    for model, optimizer in ((ours, one), (theirs, other)):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    torch.testing.assert_close([*ours.parameters()], [*theirs.parameters()])


def test_it_is_made_ready_once_a_stage_and_whenever_moments_are_replaced(
    path, make_problem, make_settings, monkeypatch
):
    path("one pass")
    made_ready, real = [], one_pass.OnePassAdamW
    monkeypatch.setattr(one_pass, "OnePassAdamW", lambda *given, **more: made_ready.append(1) or real(*given, **more))
    loop = looped(make_problem, make_settings, made(CHOICES["dps_dense, reference, matrix"]))
    counts = []
    for _ in range(STEPS):
        loop.step(loop._remaining_of_epoch()[0])
        counts.append(len(made_ready))
    assert counts == [1, 1, 2, 2, 3, 3]
    state = loop.optimizer.state[loop.optimizer.named["classifier.weight"]]
    state["exp_avg"] = state["exp_avg"].clone()
    loop.step(loop._batches(0)[:1])
    assert len(made_ready) == 4


@pytest.mark.parametrize("choice", ["dps_dense, reference, matrix", "dps_mix, paper, global"])
def test_gam_is_gone_once_the_subnetwork_is_chosen_and_masks_take_a_bit(path, make_problem, make_settings, choice):
    """The optimizer has made itself ready for GAM, and lets go of it in time for the first forward pass of stage II."""
    path("one pass")
    loop = looped(make_problem, make_settings, made(CHOICES[choice]))
    for _ in range(2):
        loop.step(loop._remaining_of_epoch()[0])
    held = [weakref.ref(squares) for squares in loop.method.gam.values()]
    assert held and all(each() is not None for each in held)
    loop.method.forward_weights(3)
    assert all(each() is None for each in held)
    for name, mask in loop.method.mask.items():
        assert (mask.dtype, mask.numel()) == (torch.uint8, math.ceil(loop.method.weights[name].numel() / 8))


# --- what the host waits for


class Waits(TorchDispatchMode):
    """Counts what would make the host wait for a GPU: values read, and sizes that depend on values. Kernels see to it for themselves."""

    READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}
    READS |= {torch.ops.aten.masked_select.default, torch.ops.aten.equal.default}

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        by_flags = function is torch.ops.aten.index.Tensor and any(
            each is not None and each.dtype == torch.bool for each in args[1]
        )
        if (function in self.READS or by_flags) and not self._in_kernel():
            self.found[str(function)] += 1
        return function(*args, **(kwargs or {}))

    def _in_kernel(self):
        frame = sys._getframe()
        while frame is not None:
            name = frame.f_globals.get("__name__", "")
            # Of dropout there is a mode, which stands around the whole update.
            if name.startswith("paperlib.kernels.") and name != "paperlib.kernels.dropout":
                return True
            frame = frame.f_back
        return False


def waits(loop):
    """Of every step but the first, which makes the moments."""
    counts = []
    for _ in range(STEPS):
        with Waits() as found:
            loop.step(loop._remaining_of_epoch()[0])
        counts.append(found.found)
    return counts[1:]


def test_a_wait_is_seen():
    values = torch.ones(3)
    with Waits() as found:
        values.sum().item(), bool(values[0] > 0), values[values > 0]
    assert found.found.total() >= 3


@pytest.mark.parametrize(
    "choice", ["dps_dense, paper, matrix", "dps_mix, reference, global", "mixout", "child_tuning_d"]
)
def test_methods_wait_for_nothing_that_vanilla_training_does_not(path, make_problem, make_settings, choice):
    """The choice of a subnetwork among it; what makes the pass ready reads counts of steps, which lie on the CPU."""
    path("one pass")
    method = looped(make_problem, make_settings, build(CHOICES[choice]))
    vanilla = looped(make_problem, make_settings, Method())
    expected, found = waits(vanilla), waits(method)
    ready = torch.ops.aten._local_scalar_dense.default
    for t, (ours, plain) in enumerate(zip(found, expected, strict=True), start=2):
        again = t in (3, 5) and "dps" in choice
        assert ours - plain == (Counter({str(ready): len(method.optimizer.state)}) if again else Counter()), t
