"""DPS Mix against an independent replay in numpy, with injected noise and injected gradients of the mixed weights."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlib.dps.mix import DPSMix
from paperlib.errors import InputError
from paperlib.training import Settings
from paperlib.training.optimizer import adamw

RATE, DECAY, CLIP = 1e-2, 0.1, 1.0


class Layer(torch.nn.Module):
    """Two tracked matrices and a bias; the loss is the sum of C * (mixed weight), so that the mixed weight's gradient is C itself."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.query = torch.nn.Linear(4, 3)
        self.classifier = torch.nn.Linear(3, 2, bias=False)

    def loss(self, given):
        return sum(
            (layer(torch.eye(layer.in_features, dtype=torch.float64)) * torch.from_numpy(given[name]).T).sum()
            for name, layer in (("query.weight", self.query), ("classifier.weight", self.classifier))
        )


SHAPES = {"query.weight": (3, 4), "classifier.weight": (2, 3)}


def injected(seed, steps):
    """Per step the gradients of both mixed weights, and which columns are active."""
    rng = np.random.default_rng(seed)
    gradients = [{name: rng.normal(size=shape) for name, shape in SHAPES.items()} for _ in range(steps)]
    noise = [{name: rng.random(shape[1]) < 0.6 for name, shape in SHAPES.items()} for _ in range(steps)]
    return gradients, noise


class Driven:
    """The method in a loop's hands, its draws replaced by ``noise``; one loss a micro-batch."""

    def __init__(self, method, steps, noise):
        self.method, self.noise = method, noise
        self.model = Layer().double()
        method.attach(self.model, steps)
        made = Settings(epochs=1, batch_size=1, learning_rate=RATE, seed=0, weight_decay=DECAY)
        self.optimizer = adamw(self.model, made)
        method._draw = self._draw

    def _draw(self, step):
        return {name: torch.from_numpy(xi) for name, xi in self.noise[step - 1].items()}

    def step(self, t, *gradients):
        self.optimizer.zero_grad()
        for each in gradients:
            with self.method.forward_weights(t):
                loss = self.model.loss(each)
            loss.backward()
        self.method.after_backward(t)
        self.optimizer.update(self.method, t, CLIP, norm=None)
        self.method.after_step(t, self.optimizer)
        return {
            name: [parameter.detach().numpy().copy()]
            + [self.optimizer.state[parameter][key].numpy().copy() for key in ("exp_avg", "exp_avg_sq")]
            for name, parameter in self.model.named_parameters()
        }


@dataclass
class Replay:
    """DPS Mix as the specification words it, in double precision.

    The loss is linear in the mixed weight: its gradient is what is injected, whatever the weight; what the forward pass sees is kept in
    ``seen``.
    """

    steps: int
    ratio: float
    keep: float
    freeze: bool
    penalty_from: int
    rescale: bool

    def run(self, gradients, noise):
        weights = {name: p.detach().double().numpy().copy() for name, p in Layer().named_parameters()}
        start = {name: w.copy() for name, w in weights.items()}
        state = {name: [w, np.zeros_like(w), np.zeros_like(w)] for name, w in weights.items()}
        us, gam, fam, mask, snapshot, trace, self.seen = int(self.steps * self.ratio), {}, {}, {}, {}, [], []
        for t in range(1, self.steps + 1):
            stage, i = math.ceil(t / us), (t - 1) % us + 1
            now, seen = {"query.bias": gradients[t - 1]["query.weight"].sum(axis=1)}, {}
            for name in SHAPES:
                g, w = gradients[t - 1][name], state[name][0]
                if stage % 2:
                    xi = noise[t - 1][name].astype(float)
                    seen[name] = np.where(xi == 1, start[name] + (w - start[name]) / self.keep, start[name])
                    now[name] = g * xi
                    gam[name] = now[name] ** 2 + (0 if i == 1 else gam[name])
                    fam[name] = xi + (0 if i == 1 else fam[name])
                else:
                    if i == 1:
                        snapshot[name], mask[name] = w.copy(), self.select(gam[name], fam[name], us)
                    spread = (w - snapshot[name]) / (self.keep if self.rescale else 1)
                    seen[name] = np.where(mask[name], snapshot[name] + spread, snapshot[name])
                    now[name] = g * mask[name]
            self.seen.append(seen)
            scale = min(1.0, CLIP / (math.sqrt(sum((g**2).sum() for g in now.values())) + 1e-6))
            for name, g in now.items():
                frozen = ~mask[name] if self.freeze and stage % 2 == 0 and name in SHAPES else False
                state[name] = self.adamw(name, *state[name], scale * g, t, frozen)
            trace.append({name: [x.copy() for x in values] for name, values in state.items()})
        return trace

    def select(self, gam, fam, us):
        frequency = np.where(fam > 0, fam, 1)
        score = gam / frequency * (np.exp(-frequency / us) if us >= self.penalty_from else 1)
        return score >= np.sort(score, axis=None)[score.size - math.ceil(score.size * self.keep)]

    def adamw(self, name, w, m, v, g, t, frozen):
        decay = 0 if name.endswith(".bias") else DECAY
        new_m, new_v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        step = RATE * (new_m / (1 - 0.9**t)) / (np.sqrt(new_v / (1 - 0.999**t)) + 1e-8)
        moved = (w * (1 - RATE * decay) - step, new_m, new_v)
        return [np.where(frozen, old, new) for old, new in zip((w, m, v), moved, strict=True)]


def close(trace, expected):
    for t, (ours, theirs) in enumerate(zip(trace, expected, strict=True), start=1):
        for name in theirs:
            for what, one, other in zip(("W", "m", "v"), ours[name], theirs[name], strict=True):
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-12, err_msg=f"{what} of {name}, step {t}")


cycles = {
    "steps": st.integers(4, 14),
    "ratio": st.floats(0.25, 0.6),
    "keep": st.floats(0.2, 0.95),
    "seed": st.integers(0, 99),
    "freeze": st.booleans(),
    "penalty_from": st.sampled_from([1, 50]),
    "rescale": st.booleans(),
}


@given(**cycles)
@settings(deadline=None, max_examples=60)
def test_the_trace_equals_the_replay(steps, ratio, keep, seed, freeze, penalty_from, rescale):
    """All W, m and v after every step, over whole cycles and cut ones, to 1e-12."""
    gradients, noise = injected(seed, steps)
    policy = "freeze" if freeze else "grad_zero"
    driven = Driven(DPSMix(keep, ratio, policy, penalty_from=penalty_from, rescale=rescale), steps, noise)
    trace = [driven.step(t, gradients[t - 1]) for t in range(1, steps + 1)]
    close(trace, Replay(steps, ratio, keep, freeze, penalty_from, rescale).run(gradients, noise))


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("rescale", [False, True])
def test_forward_passes_see_the_mixed_weights(freeze, rescale):
    gradients, noise = injected(7, 12)
    replay = Replay(12, 0.25, 0.6, freeze, 1, rescale)
    replay.run(gradients, noise)
    policy = "freeze" if freeze else "grad_zero"
    driven = Driven(DPSMix(0.6, 0.25, policy, penalty_from=1, rescale=rescale), 12, noise)
    for t in range(1, 13):
        with driven.method.forward_weights(t):
            seen = (driven.model.classifier(torch.eye(3, dtype=torch.float64))).T
        np.testing.assert_allclose(seen.detach(), replay.seen[t - 1]["classifier.weight"], rtol=0, atol=1e-12)
        driven.step(t, gradients[t - 1])


def test_at_the_first_step_of_stage_two_the_weights_themselves_are_seen():
    gradients, noise = injected(2, 8)
    driven = Driven(DPSMix(0.5, 0.25, "grad_zero"), 8, noise)
    for t in (1, 2):
        driven.step(t, gradients[t - 1])
    with driven.method.forward_weights(3):
        seen = driven.model.classifier(torch.eye(3, dtype=torch.float64)).T
    assert torch.equal(seen, driven.model.classifier.weight)


def test_micro_batches_of_a_step_share_one_draw_and_one_count():
    """Accumulated halves are the whole: in GAM, FAM and the weights."""
    gradients, noise = injected(4, 12)
    whole, parts = (Driven(DPSMix(0.6, 0.25, "grad_zero"), 12, noise) for _ in range(2))
    rng = np.random.default_rng(0)
    for t in range(1, 13):
        share = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
        rest = {name: gradients[t - 1][name] - share[name] for name in SHAPES}
        expected, found = whole.step(t, gradients[t - 1]), parts.step(t, share, rest)
        close([found], [expected])
        assert all(torch.equal(parts.method.fam[name], counts) for name, counts in whole.method.fam.items())


def test_frequency_counts_active_columns_of_the_stage():
    gradients, noise = injected(1, 12)
    driven = Driven(DPSMix(0.6, 0.25, "grad_zero"), 12, noise)
    for t in (1, 2, 3):
        driven.step(t, gradients[t - 1])
        for name in SHAPES:
            assert driven.method.fam[name].tolist() == sum(noise[s][name].astype(int) for s in range(t)).tolist()


def test_with_fewer_scores_than_asked_for_everything_is_kept():
    """A column that never was active has GAM 0; a threshold of 0 keeps all entries, as measured on the published code."""
    gradients, noise = injected(3, 4)
    for each in noise:
        each["query.weight"] = np.array([True, False, False, False])
    driven = Driven(DPSMix(0.5, 0.5, "grad_zero"), 4, noise)
    for t in (1, 2, 3):
        driven.step(t, gradients[t - 1])
    assert driven.method.mask["query.weight"].all()


@pytest.mark.parametrize("policy", ["grad_zero", "freeze"])
@pytest.mark.parametrize("cut", range(1, 12))
def test_state_taken_at_any_step_goes_on_the_same(policy, cut):
    """What the published code cannot: its snapshots are not in its state."""
    gradients, noise = injected(5, 12)
    broken, whole = (Driven(DPSMix(0.6, 0.25, policy), 12, noise) for _ in range(2))
    for t in range(1, 13):
        if t == cut + 1:
            state = {name: tensor.clone() for name, tensor in broken.method.state_dict().items()}
            start = broken.method.start
            broken.method = DPSMix(0.6, 0.25, policy)
            broken.method.attach(broken.model, 12)
            # The loop attaches before it loads trained weights, so the start is drawn anew.
            broken.method.start = start
            broken.method._draw = broken._draw
            broken.method.load_state_dict(state)
        found, expected = broken.step(t, gradients[t - 1]), whole.step(t, gradients[t - 1])
    for name in expected:
        for one, other in zip(found[name], expected[name], strict=True):
            np.testing.assert_array_equal(one, other)


def test_freeze_leaves_weight_and_moments_of_masked_entries_bitwise():
    gradients, noise = injected(1, 12)
    driven = Driven(DPSMix(0.5, 0.25, "freeze"), 12, noise)
    before = [driven.step(t, gradients[t - 1]) for t in range(1, 5)][-1]
    mask = {name: mask.numpy().copy() for name, mask in driven.method.mask.items()}
    after = driven.step(5, gradients[4])
    for name in SHAPES:
        for old, new in zip(before[name], after[name], strict=True):
            np.testing.assert_array_equal(new[~mask[name]], old[~mask[name]])
            assert (new[mask[name]] != old[mask[name]]).all()


def test_evaluation_sees_the_weights_themselves():
    gradients, noise = injected(2, 8)
    driven = Driven(DPSMix(0.5, 0.25, "grad_zero"), 8, noise)
    driven.step(1, gradients[0])
    with driven.method.forward_weights(2), torch.no_grad():
        assert torch.equal(driven.model.classifier(torch.eye(3).double()).T, driven.model.classifier.weight)


def test_the_published_types_change_memory_alone():
    gradients, noise = injected(6, 12)
    lean, wide = (Driven(DPSMix(0.6, 0.25, "grad_zero", reference_dtypes=wide), 12, noise) for wide in (False, True))
    for t in range(1, 13):
        expected, found = lean.step(t, gradients[t - 1]), wide.step(t, gradients[t - 1])
        close([found], [expected])


@pytest.mark.parametrize("keep", [0.0, 1.5, float("nan")])
def test_impossible_fractions_are_refused(keep):
    with pytest.raises(InputError, match="kept share must lie in"):
        DPSMix(keep, 0.1, "freeze")
