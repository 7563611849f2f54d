"""DPS Dense against an independent replay in numpy, entry by entry, and at its edges."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlib.dps import methods
from paperlib.dps.dense import DPSDense
from paperlib.errors import InputError
from paperlib.training import Method, Settings
from paperlib.training.optimizer import adamw

RATE, DECAY, CLIP = 1e-2, 0.1, 1.0
STILL = Settings(epochs=1, batch_size=1, learning_rate=0.0, seed=0)


class Layer(torch.nn.Module):
    """Two tracked matrices and three tensors that never are: a bias, a layer norm's weight, an embedding."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(3, 2)
        self.query = torch.nn.Linear(4, 3)
        self.LayerNorm = torch.nn.LayerNorm(3, bias=False)
        self.classifier = torch.nn.Linear(3, 2, bias=False)


TRACKED = ("query.weight", "classifier.weight")


def gradients(seed, steps, whole=False):
    """One array per parameter and step; whole numbers make exact ties."""
    rng = np.random.default_rng(seed)
    shapes = {name: tuple(parameter.shape) for name, parameter in Layer().named_parameters()}

    def draw(shape):
        return rng.integers(-2, 3, shape).astype(float) if whole else rng.normal(size=shape)

    return [{name: draw(shape) for name, shape in shapes.items()} for _ in range(steps)]


class Driven:
    """The method between an optimizer and given gradients, its moments called as the loop calls them."""

    def __init__(self, method, steps):
        self.method, self.model = method, Layer().double()
        self.names = dict(self.model.named_parameters())
        method.attach(self.model, steps)
        settings = Settings(epochs=1, batch_size=1, learning_rate=RATE, seed=0, weight_decay=DECAY)
        self.optimizer = adamw(self.model, settings)

    def step(self, t, given):
        for name, parameter in self.names.items():
            parameter.grad = torch.from_numpy(given[name].copy())
        with self.method.forward_weights(t):
            pass
        self.method.after_backward(t)
        self.optimizer.update(self.method, t, CLIP, norm=None)
        self.method.after_step(t, self.optimizer)
        return self.snapshot()

    def snapshot(self):
        """(W, m, v) of every parameter."""
        moments = self.optimizer.state
        return {
            name: tuple(
                tensor.detach().numpy().copy()
                for tensor in (parameter, moments[parameter]["exp_avg"], moments[parameter]["exp_avg_sq"])
            )
            for name, parameter in self.names.items()
        }


@dataclass
class Replay:
    """DPS Dense as the specification words it, in numpy and double precision."""

    steps: int
    ratio: float
    keep: float
    freeze: bool

    def run(self, given):
        weights = {name: parameter.detach().double().numpy().copy() for name, parameter in Layer().named_parameters()}
        state = {name: [weight, np.zeros_like(weight), np.zeros_like(weight)] for name, weight in weights.items()}
        us, gam, mask, trace = int(self.steps * self.ratio), {}, {}, []
        for t in range(1, self.steps + 1):
            stage, i = math.ceil(t / us), (t - 1) % us + 1
            now = {name: gradient.copy() for name, gradient in given[t - 1].items()}
            for name in TRACKED:
                if stage % 2:
                    gam[name] = now[name] ** 2 + (0 if i == 1 else gam[name])
                else:
                    mask[name] = self.select(gam[name]) if i == 1 else mask[name]
                    now[name] *= mask[name]
            norm = math.sqrt(sum((gradient**2).sum() for gradient in now.values()))
            scale = min(1.0, CLIP / (norm + 1e-6))
            for name, gradient in now.items():
                frozen = ~mask[name] if self.freeze and stage % 2 == 0 and name in TRACKED else False
                state[name] = self.adamw(name, *state[name], scale * gradient, t, frozen)
            trace.append({name: tuple(values) for name, values in state.items()})
        return trace

    def select(self, gam):
        kept = math.ceil(gam.size * self.keep)
        return gam >= np.sort(gam, axis=None)[gam.size - kept]

    def adamw(self, name, w, m, v, g, t, frozen):
        decay = 0 if name.endswith(".bias") or "LayerNorm" in name else DECAY
        new_m, new_v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        step = RATE * (new_m / (1 - 0.9**t)) / (np.sqrt(new_v / (1 - 0.999**t)) + 1e-8)
        moved = (w * (1 - RATE * decay) - step, new_m, new_v)
        return [np.where(frozen, old, new) for old, new in zip((w, m, v), moved, strict=True)]


def close(trace, expected):
    for t, (ours, theirs) in enumerate(zip(trace, expected, strict=True), start=1):
        for name in theirs:
            for what, one, other in zip(("W", "m", "v"), ours[name], theirs[name], strict=True):
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-12, err_msg=f"{what} of {name}, step {t}")


@pytest.mark.parametrize("preset", methods.PRESETS)
@given(
    steps=st.integers(4, 14),
    ratio=st.floats(0.25, 0.6),
    p=st.floats(0.05, 0.95),
    seed=st.integers(0, 99),
    whole=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_the_trace_equals_the_replay(preset, steps, ratio, p, seed, whole):
    """All W, m and v after every step, over whole cycles and cut ones, to 1e-12."""
    given_ = gradients(seed, steps, whole)
    driven = Driven(methods.build(methods.Choice("dps_dense", preset, p, ratio)), steps)
    keep, freeze = (1 - p, False) if preset == "reference" else (p, True)
    close([driven.step(t, given_[t - 1]) for t in range(1, steps + 1)], Replay(steps, ratio, keep, freeze).run(given_))


@pytest.mark.parametrize("policy", ["grad_zero", "freeze"])
def test_keep_fraction_and_policy_are_independent(policy):
    given_ = gradients(3, 12)
    driven = Driven(DPSDense(0.4, 0.25, policy), 12)
    trace = [driven.step(t, given_[t - 1]) for t in range(1, 13)]
    close(trace, Replay(12, 0.25, 0.4, policy == "freeze").run(given_))


@pytest.mark.parametrize("policy", ["grad_zero", "freeze"])
@pytest.mark.parametrize("cut", range(1, 12))
def test_state_taken_at_any_step_goes_on_the_same(policy, cut):
    given_ = gradients(5, 12)
    driven = Driven(DPSDense(0.4, 0.25, policy), 12)
    for t in range(1, 13):
        if t == cut + 1:
            state = {name: tensor.clone() for name, tensor in driven.method.state_dict().items()}
            driven.method = DPSDense(0.4, 0.25, policy)
            driven.method.attach(driven.model, 12)
            driven.method.load_state_dict(state)
        last = driven.step(t, given_[t - 1])
    uninterrupted = Driven(DPSDense(0.4, 0.25, policy), 12)
    for t in range(1, 13):
        expected = uninterrupted.step(t, given_[t - 1])
    for name in expected:
        for one, other in zip(last[name], expected[name], strict=True):
            np.testing.assert_array_equal(one, other)


# --- masked entries


def stage_two(policy):
    """A driven method in the middle of stage II, the snapshot before the step, and the mask."""
    given_ = gradients(1, 12)
    driven = Driven(DPSDense(0.5, 0.25, policy), 12)
    before = [driven.step(t, given_[t - 1]) for t in range(1, 5)][-1]
    mask = {name: mask.numpy().copy() for name, mask in driven.method.mask.items()}
    return before, driven.step(5, given_[4]), mask


def test_freeze_leaves_weight_and_moments_of_masked_entries_bitwise():
    before, after, mask = stage_two("freeze")
    for name in TRACKED:
        for old, new in zip(before[name], after[name], strict=True):
            np.testing.assert_array_equal(new[~mask[name]], old[~mask[name]])
            assert (new[mask[name]] != old[mask[name]]).all()


def test_grad_zero_lets_momentum_and_decay_move_them():
    before, after, mask = stage_two("grad_zero")
    for name in TRACKED:
        out = ~mask[name]
        (w, m, v), (new_w, new_m, new_v) = (tuple(x[out] for x in each[name]) for each in (before, after))
        np.testing.assert_allclose(new_m, 0.9 * m, rtol=1e-15)
        np.testing.assert_allclose(new_v, 0.999 * v, rtol=1e-15)
        assert (new_w != w).all()


@pytest.mark.parametrize("policy", ["grad_zero", "freeze"])
def test_biases_layer_norms_and_embeddings_are_never_masked(policy):
    before, after, _ = stage_two(policy)
    for name in set(before) - set(TRACKED):
        assert (before[name][0] != after[name][0]).all()


def test_clipping_counts_only_what_the_mask_leaves():
    """A masked gradient of any size changes nothing; before the mask it would eat the whole norm."""
    given_ = gradients(2, 6)
    plain, shouting = (Driven(DPSDense(0.5, 0.5, "grad_zero"), 6) for _ in range(2))
    for t in range(1, 5):
        expected, found = plain.step(t, given_[t - 1]), shouting.step(t, given_[t - 1])
    loud = {name: np.copy(gradient) for name, gradient in given_[4].items()}
    for name in TRACKED:
        loud[name][~plain.method.mask[name].numpy()] = 1e6
    expected, found = plain.step(5, given_[4]), shouting.step(5, loud)
    for name in expected:
        np.testing.assert_array_equal(found[name][0], expected[name][0])


# --- edges of the selection


def masks_after_stage_one(stage_one, keep=0.5):
    """Masks chosen from the gradients of a stage I, and the gradients after the first step of stage II."""
    model = Layer().double()
    method = DPSDense(keep, 0.5, "grad_zero")
    method.attach(model, 2 * len(stage_one))
    names, optimizer = dict(model.named_parameters()), adamw(model, STILL)
    for t, given_ in enumerate([*stage_one, gradients(9, 1)[0]], start=1):
        for name in names:
            names[name].grad = torch.from_numpy(given_[name].copy())
        with method.forward_weights(t):
            pass
        method.after_backward(t)
        optimizer.update(method, t, math.inf, norm=None)
    return {name: mask.numpy() for name, mask in method.mask.items()}, {n: p.grad.numpy() for n, p in names.items()}


def with_query(values):
    return gradients(0, 1)[0] | {"query.weight": np.asarray(values, dtype=float).reshape(3, 4)}


def test_selection_is_per_matrix():
    """However small a matrix's gradients are beside the other's, it keeps its own share."""
    masks, _ = masks_after_stage_one(
        [gradients(0, 1)[0] | {"classifier.weight": np.arange(1.0, 7).reshape(2, 3) * 1e-6}]
    )
    assert masks["classifier.weight"].tolist() == [[False] * 3, [True] * 3]
    assert masks["query.weight"].sum() == 6


def test_signs_do_not_matter_and_all_steps_of_the_stage_count():
    first, second = with_query([-5, *[1] * 11]), with_query([0, *[4] * 5, *[1] * 6])
    masks, _ = masks_after_stage_one([first, second], keep=1 / 12)
    assert masks["query.weight"].ravel().tolist() == [True] + [False] * 11


def test_ties_at_the_threshold_are_all_kept():
    masks, _ = masks_after_stage_one([with_query([3, *[2] * 8, 1, 1, 1])], keep=0.25)
    assert masks["query.weight"].sum() == 9


def test_all_zero_gradients_keep_everything():
    masks, _ = masks_after_stage_one([with_query([0] * 12)])
    assert masks["query.weight"].all() and masks["classifier.weight"].sum() == 3


def test_infinite_gradients_are_kept_and_nan_ones_are_not():
    masks, _ = masks_after_stage_one([with_query([np.inf, -np.inf, np.nan, *range(9)])], keep=0.25)
    assert np.flatnonzero(masks["query.weight"]).tolist() == [0, 1, 11]


def test_with_nothing_but_nan_the_matrix_rests_for_the_stage():
    masks, gradient = masks_after_stage_one([with_query([np.nan] * 12)])
    assert not masks["query.weight"].any() and not gradient["query.weight"].any()


def test_the_count_is_rounded_up_in_double_precision_as_the_published_code_does():
    """10 * (1 - 0.7) is a little more than 3: four entries are kept."""
    model = torch.nn.Linear(10, 1, bias=False).double()
    method = methods.build(methods.Choice("dps_dense", "reference", 0.7, 0.5))
    method.attach(model, 2)
    optimizer = adamw(model, STILL)
    for t in (1, 2):
        model.weight.grad = torch.arange(1.0, 11, dtype=torch.float64)[None]
        with method.forward_weights(t):
            pass
        method.after_backward(t)
        optimizer.update(method, t, math.inf, norm=None)
    assert method.mask["weight"].sum() == 4


def test_keeping_everything_is_plain_training():
    given_ = gradients(4, 8)
    dense, vanilla = Driven(DPSDense(1.0, 0.25, "grad_zero"), 8), Driven(Method(), 8)
    for t in range(1, 9):
        ours, plain = dense.step(t, given_[t - 1]), vanilla.step(t, given_[t - 1])
    for name in plain:
        np.testing.assert_array_equal(ours[name][0], plain[name][0])


# --- the clock's edges


def test_a_stage_of_one_step():
    given_ = gradients(6, 10)
    driven = Driven(DPSDense(0.5, 0.1, "freeze"), 10)
    close([driven.step(t, given_[t - 1]) for t in range(1, 11)], Replay(10, 0.1, 0.5, True).run(given_))


def test_a_stage_of_no_step_is_refused_when_the_method_meets_the_run():
    with pytest.raises(InputError, match="less than one step"):
        DPSDense(0.5, 0.05, "freeze").attach(Layer(), 19)


@pytest.mark.parametrize("policy", ["grad_zero", "freeze"])
@given(seen=st.sets(st.integers(1, 12), min_size=1), us=st.integers(1, 4))
@settings(deadline=None)
def test_steps_the_loop_skipped_do_no_harm(policy, seen, us):
    """Whichever steps are lost to a loss that is not finite: accumulation and selection use what was seen of the stage."""
    given_ = gradients(8, 12)
    driven = Driven(DPSDense(0.5, us / 12 + 1e-9, policy), 12)
    for t in sorted(seen):
        after = driven.step(t, given_[t - 1])
        stage = math.ceil(t / us)
        so_far = [s for s in sorted(seen) if s <= t]
        before = any(math.ceil(s / us) == stage - 1 for s in so_far)
        if stage % 2:
            # Only if all of stage II and the next first step are lost does a GAM go on into the next cycle.
            if before or stage == 1 or (stage - 1) * us + 1 in seen:
                squares = [given_[s - 1]["query.weight"] ** 2 for s in so_far if math.ceil(s / us) == stage]
                np.testing.assert_allclose(driven.method.gam["query.weight"].numpy(), sum(squares), rtol=1e-12)
            assert not driven.method.mask
        elif before:
            assert driven.method.mask["query.weight"].sum() == 6
        assert all(np.isfinite(values).all() for each in after.values() for values in each)


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.5, float("nan")])
def test_impossible_fractions_are_refused(keep):
    with pytest.raises(InputError, match="kept share must lie in"):
        DPSDense(keep, 0.1, "freeze")


def test_a_model_without_linear_weights_is_refused():
    with pytest.raises(InputError, match="no trainable Linear weight"):
        DPSDense(0.5, 0.1, "freeze").attach(torch.nn.LayerNorm(3), 100)
