"""Delta-pruning and masked tuning through the real loop: against dense tuning with a mask, by hand, and what it costs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, BertConfig

from paperlib import measure
from paperlib.backbones import Backbone
from paperlib.errors import InputError
from paperlib.lets import pruning
from paperlib.lets.architecture import Architecture, Own
from paperlib.lets.masked_tuning import MaskedTuning, WarmUp, delta_pruned, owned, place
from paperlib.lets.offsets import Offset, compact
from paperlib.lets.own_layers import CompactOffset
from paperlib.lets.problem import TaskProblem
from paperlib.lets.readout import ReadoutSizes
from paperlib.lets.search import Search
from paperlib.lets.search import Settings as SearchSettings
from paperlib.training import Loop, Method, Settings
from paperlib.training.batches import epoch_batches
from paperlib.training.random_rows import RandomRows

L, SIZES, K = 2, ReadoutSizes(aggregation=5, lstm=4), 0.05
MIXED = Architecture((Own(False, True, False), Own(True, True, True)))
WALK = WarmUp(steps=4, batch_size=4, learning_rate=1e-3, precision="fp32")
BIAS_RATE = 5e-3


@pytest.fixture
def make(make_problem):
    """``make(architecture, double, ...)``: a sub-task of a tiny problem, in float64 without dropout where ``double``."""

    def made(architecture=MIXED, double=False, dropout=0.2, **options):
        problem = make_problem(dropout=0.0 if double else dropout, **options)
        if double:
            problem.backbone.model.double()
        return TaskProblem(problem, architecture, SIZES)

    return made


def values(module):
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def equal(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[name].values, other[name].values) and torch.equal(one[name].indices, other[name].indices)
        for name in one
    )


def random_masks(problem, share=0.1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(own.offset.weight.shape, generator=generator) < share
        for name, own in owned(problem.fresh().model).items()
    }


def offsets_at(masks, dtype=torch.float32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: 0.1 * torch.randn(mask.shape, generator=generator, dtype=dtype) for name, mask in masks.items()}
    return compact(drawn, masks)


# --- Delta-pruning


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_algorithm_2_step_by_step(make, optimizer):
    """In float64: the walk, g = W^d dL/dW of one batch, |g| over its sum, and the k m largest, all by hand."""
    problem = make(double=True)
    found = delta_pruned(problem, K, replace(WALK, optimizer=optimizer))
    network = problem.fresh().model
    parameters = [*network.parameters()]
    epochs = [epoch_batches(problem.train.lengths, 4, 0, epoch) for epoch in range(3)]

    def loss(rows):
        batch = problem.batch(problem.train, rows)
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        return functional.cross_entropy(network(problem.frozen(**inputs)), batch["labels"])

    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    for step, rows in enumerate((epochs[0] + epochs[1])[:4], start=1):
        slopes = torch.autograd.grad(loss(rows), parameters)
        norm = torch.cat([slope.flatten() for slope in slopes]).norm()
        with torch.no_grad():
            for parameter, slope, (m, v) in zip(parameters, slopes, moments, strict=True):
                slope = slope * min(1.0, (1.0 / (norm + 1e-6)).item())
                m.lerp_(slope, 0.1), v.lerp_(slope**2, 0.001)
                adam = (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
                parameter -= 1e-3 * (adam if optimizer == "adam" else slope)
    weights = {name: own.offset.weight for name, own in owned(network).items()}
    slopes = torch.autograd.grad(loss(epochs[2][0]), [*weights.values()])
    s = np.concatenate([(w * g).abs().flatten().detach() for w, g in zip(weights.values(), slopes, strict=True)])
    s /= s.sum()
    kappa = round(K * len(s))
    expected = np.zeros(len(s), dtype=bool)
    expected[np.argsort(-s)[:kappa]] = True
    start = 0
    for name, weight in weights.items():
        kept = np.flatnonzero(expected[start : start + weight.numel()])
        assert found[name].indices.tolist() == kept.tolist()
        torch.testing.assert_close(found[name].values, weight.detach().flatten()[kept], rtol=1e-6, atol=1e-9)
        start += weight.numel()
    assert sum(len(each.values) for each in found.values()) == kappa


def test_every_matrix_alone_keeps_its_own_share(make):
    found = delta_pruned(make(), K, WALK, per_matrix=True)
    assert all(len(each.values) == round(K * torch.Size(each.shape).numel()) for each in found.values())
    assert set(found) == set(owned(make().model)) and len(found) == 4 + 6


def test_masks_come_from_the_seed_and_touch_nothing(make):
    problem = make()
    frozen, before = values(problem.backbone.model.base_model), torch.get_rng_state()
    first = delta_pruned(problem, K, WALK)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert equal(delta_pruned(make(), K, WALK), first)
    assert not equal(delta_pruned(problem, K, replace(WALK, seed=1)), first)
    assert same(values(problem.backbone.model.base_model), frozen) and "model" not in vars(problem)


def test_what_was_found_is_kept_and_taken_back(make, tmp_path, monkeypatch):
    found = delta_pruned(make(), K, WALK, folder=tmp_path / "run")
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["offsets.safetensors"]
    monkeypatch.setattr(WarmUp, "walk", lambda *_: pytest.fail("nothing is to be walked again"))
    assert equal(delta_pruned(make(), K, WALK, folder=tmp_path / "run"), found)
    stored = load_file(tmp_path / "run" / "offsets.safetensors")
    kept = sum(len(each.values) for each in found.values())
    assert sum(tensor.nbytes for tensor in stored.values()) == 8 * kept, "8 bytes a kept weight"


@pytest.mark.parametrize("k", [0.0, -0.1, 1.01, 1e-9])
def test_the_share_is_checked_before_the_walk(make, monkeypatch, k):
    monkeypatch.setattr(WarmUp, "walk", lambda *_: pytest.fail("a walk for nothing"))
    with pytest.raises(InputError, match="delta-pruning: "):
        delta_pruned(make(), k, WALK)


def test_where_nothing_is_owned_nothing_is_pruned(make, monkeypatch):
    monkeypatch.setattr(WarmUp, "walk", lambda *_: pytest.fail("a walk for nothing"))
    assert delta_pruned(make(Architecture.all_share(L)), K, WALK) == {}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"steps": 0}, "warm-up: steps must be a finite number above 0, got 0"),
        ({"learning_rate": float("nan")}, "warm-up: learning_rate must be"),
        ({"batch_size": -1}, "warm-up: batch_size must be"),
        ({"optimizer": "lamb"}, "warm-up: unknown optimizer 'lamb'; known: adam, sgd"),
    ],
)
def test_a_warm_up_that_cannot_be_is_refused(changed, told):
    with pytest.raises(InputError, match=told):
        WarmUp(**changed)


def test_a_warm_up_that_diverges_says_so(make):
    problem = make()
    with torch.no_grad():
        problem.model.readout.head.weight.fill_(float("inf"))
    with pytest.raises(InputError, match="gradient of step 1 is not finite; lower the learning rate"):
        next(WALK.walk(problem))


# --- what is computed


@pytest.mark.parametrize("own", [MIXED, Architecture.all_own(L), Architecture((Own(False, True, True),) * L)])
def test_compact_offsets_compute_what_the_dense_ones_do(make, own):
    """In float64; values and gradients, on shared inputs and on others, kept or not."""
    dense, problem = make(own, double=True), make(own, double=True)
    masks = random_masks(problem)
    offsets = offsets_at(masks, torch.float64)
    with torch.no_grad():
        for name, each in owned(dense.model).items():
            each.offset.weight.copy_(offsets[name].dense())
    place(problem.model, offsets, zero=False)
    for name, each in owned(problem.model).items():
        frozen = torch.ones(offsets[name].shape, dtype=torch.float64)
        assert torch.equal(each.offset.merged(frozen), frozen + offsets[name].dense())
    batch = problem.batch(problem.train, np.arange(4))
    for each in (dense, problem):
        each.loss(each.logits(batch), batch).backward()
    torch.testing.assert_close(problem.logits(batch), dense.logits(batch), rtol=0, atol=1e-13)
    theirs = dict(dense.model.named_parameters())
    for name, parameter in problem.model.named_parameters():
        if name.endswith(".values"):
            linear = name.removesuffix(".offset.values")
            expected = theirs[f"{linear}.offset.weight"].grad[masks[linear]]
        else:
            expected = theirs[name].grad
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-10, atol=1e-14)


class Masked(Method):
    """Dense offsets of which the gradient outside ``masks`` is taken away: what masked tuning is to equal."""

    def __init__(self, masks):
        self.masks = masks

    def attach(self, model, total_steps):
        self.weights = {name: own.offset.weight for name, own in owned(model).items()}

    def after_backward(self, step):
        for name, weight in self.weights.items():
            weight.grad *= self.masks[name]
        return True


def test_it_is_dense_tuning_under_a_mask(make, make_settings):
    """In float64, same rates: offsets outside the mask stay 0, those inside and everything else end where ours do."""
    settings = make_settings(epochs=2, clip_norm=0.5, weight_decay=0.0)
    problem, dense = make(double=True), make(double=True)
    masks = random_masks(problem)
    method = MaskedTuning(offsets_at(masks, torch.float64), settings.learning_rate)
    losses = [Loop(*each, settings).run().losses for each in ((problem, method), (dense, Masked(masks)))]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-10)
    for name, own in owned(dense.model).items():
        found = method.found()[name].dense()
        assert not own.offset.weight[~masks[name]].any()
        torch.testing.assert_close(found, own.offset.weight.detach(), rtol=1e-6, atol=1e-11)
    # Keys' biases have no gradient but rounding, which Adam makes a step of.
    ours, theirs = (
        {n: p for n, p in each.model.named_parameters() if ".offset." not in n and "key.bias" not in n}
        for each in (problem, dense)
    )
    for name, parameter in ours.items():
        torch.testing.assert_close(parameter, theirs[name], rtol=1e-6, atol=1e-10)
    assert any(each.values.abs().max() > 1e-4 for each in method.found().values())


def test_only_the_sub_task_moves_and_all_of_it_does(make, make_settings):
    problem = make()
    frozen = values(problem.backbone.model.base_model)
    method = MaskedTuning(offsets_at(random_masks(problem)), BIAS_RATE)
    loop = Loop(problem, method, make_settings(warmup_ratio=0.0))
    before = values(problem.model)
    loop.run()
    assert same(values(problem.backbone.model.base_model), frozen)
    still = {name for name, tensor in values(problem.model).items() if torch.equal(tensor, before[name])}
    assert {name for name in still if "key.bias" not in name} == {f"{name}.offset.indices" for name in method.found()}


@pytest.mark.parametrize("start", ["zero", "warm"])
def test_where_offsets_start(make, make_settings, start):
    problem = make()
    offsets = offsets_at(random_masks(problem))
    method = MaskedTuning(offsets, BIAS_RATE, start)
    Loop(problem, method, make_settings())
    for name, offset in method.found().items():
        assert torch.equal(offset.values, offsets[name].values if start == "warm" else torch.zeros_like(offset.values))
        assert torch.equal(offset.indices, offsets[name].indices)


def test_a_matrix_of_which_nothing_is_kept_is_the_frozen_one(make, make_settings):
    problem = make()
    masks = {name: torch.zeros_like(mask) for name, mask in random_masks(problem).items()}
    method = MaskedTuning(offsets_at(masks), BIAS_RATE)
    outcome = Loop(problem, method, make_settings()).run()
    assert outcome.skipped_steps == 0 and np.isfinite(outcome.losses).all()
    assert method.sizes()["offsets"] == method.sizes()["bytes"] == 0


def test_a_sub_task_that_owns_nothing_is_a_probe(make, make_settings):
    problem = make(Architecture.all_share(L))
    method = MaskedTuning({}, BIAS_RATE)
    outcome = Loop(problem, method, make_settings()).run()
    assert outcome.skipped_steps == 0 and method.found() == {}


def test_it_learns(make, make_settings):
    problem = make(Architecture.all_own(L), train=8, dropout=0.0)
    method = MaskedTuning(offsets_at(random_masks(problem)), 3e-2)
    outcome = Loop(problem, method, make_settings(epochs=60, batch_size=8, learning_rate=3e-2)).run()
    assert outcome.losses[-1] < 0.5 * outcome.losses[0]


def test_sizes_are_what_is_stored(make, make_settings):
    problem = make()
    masks = random_masks(problem)
    method = MaskedTuning(offsets_at(masks), BIAS_RATE)
    Loop(problem, method, make_settings())
    kept = sum(int(mask.sum()) for mask in masks.values())
    sizes = method.sizes()
    assert sizes["offsets"] == kept and sizes["bytes"] == 8 * kept
    assert sum(sizes.values()) - sizes["bytes"] == sum(p.numel() for p in problem.model.parameters())


def test_from_a_search_to_a_tuned_sub_task(make, make_settings, tmp_path):
    """All phases on one frozen encoder, which none of them changes; the architecture goes through JSON."""
    whole = make(Architecture.all_own(L))
    frozen = values(whole.frozen)
    rates = {"learning_rate": 1e-2, "alpha_learning_rate": 0.1, "form": "L2", "alpha": 1e-6}
    found = Search(whole, SearchSettings(epochs=2, batch_size=4, patience=100, seed=3, **rates)).run()
    architecture = Architecture(json.loads(json.dumps(found.results()))["architecture"])
    problem = whole.fresh(architecture)
    offsets = delta_pruned(problem, K, WALK, folder=tmp_path)
    method = MaskedTuning(offsets, BIAS_RATE)
    outcome = Loop(problem, method, make_settings(), tmp_path).run()
    assert architecture not in (Architecture.all_share(L), Architecture.all_own(L)) and offsets
    assert method.found().keys() == offsets.keys() and set(outcome.test) == {"accuracy"}
    assert same(values(whole.frozen), frozen)


# --- two rates


def test_biases_learn_at_their_own_rate_on_the_same_schedule(make, make_settings):
    """Warm-up and fall of both; no decay of biases and norms; between steps the groups are the schedule's own."""
    problem = make()
    method = MaskedTuning(offsets_at(random_masks(problem)), BIAS_RATE)
    loop = Loop(problem, method, make_settings(warmup_ratio=0.0, warmup_steps=2, weight_decay=0.1))
    names = {parameter: name for name, parameter in problem.model.named_parameters()}
    outside = [[id(p) for p in group["params"]] for group in loop.optimizer.param_groups]
    seen = []

    def note(optimizer, args, kwargs):
        seen.append({names[p]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]})

    loop.optimizer.register_step_pre_hook(note)
    loop.run()
    assert [[id(p) for p in group["params"]] for group in loop.optimizer.param_groups] == outside
    steps = loop.total_steps
    biases = {name for name in names.values() if name.startswith("layers.") and name.endswith(".bias")}
    norms = {name for name in names.values() if name.endswith("norm.weight")}
    assert len(seen) == steps == 6 and len(biases) == 5 + 8 and len(norms) == 3
    for step, rates in enumerate(seen):
        rising = min(step / 2, (steps - step) / (steps - 2))
        assert set(rates) == set(names.values())
        for name, (rate, decay) in rates.items():
            assert rate == pytest.approx((BIAS_RATE if name in biases else 1e-3) * rising, rel=1e-12)
            assert not decay or name not in biases | norms
            assert decay == 0.1 or not name.endswith(".values")


def test_two_rates_are_bit_for_bit_an_optimizer_of_two_groups(make, make_settings):
    """Against torch's AdamW over :meth:`Task.parameter_groups`, stepped by hand at constant rates."""
    settings = make_settings(epochs=2, weight_decay=0.0, warmup_ratio=0.0, clip_norm=1e9)
    problem, plain = make(dropout=0.0), make(dropout=0.0)
    offsets = offsets_at(random_masks(problem))
    loop = Loop(problem, MaskedTuning(offsets, BIAS_RATE), settings)
    loop.schedule.lr_lambdas = [lambda _: 1.0] * len(loop.schedule.lr_lambdas)
    place(plain.model, offsets, zero=True)
    groups = plain.model.parameter_groups(settings.learning_rate, BIAS_RATE)
    optimizer = torch.optim.AdamW(groups, eps=1e-8, weight_decay=0.0, fused=True)
    for epoch in range(2):
        for rows in epoch_batches(problem.train.lengths, 4, 0, epoch):
            loop.step([rows])
            batch = plain.batch(plain.train, rows)
            plain.loss(plain.logits(batch), batch).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert same(values(problem.model), values(plain.model))


# --- killed and resumed


class Killed(Exception):
    pass


@pytest.mark.parametrize("compacted", [True, False])
def test_a_killed_run_goes_on_as_if_nothing_had_been(make, make_settings, tmp_path, compacted):
    """Dropout on, a validation after every epoch, killed between the optimizer's step and the method's last moment."""

    def start(folder):
        problem = make(validation=4)
        method = MaskedTuning(offsets_at(random_masks(problem)) if compacted else None, BIAS_RATE, "warm")
        return problem, method, lambda: Loop(problem, method, make_settings(checkpoint_seconds=-1.0), tmp_path / folder)

    problem, method, loop = start("whole")
    whole = loop().run()
    cut, dying, loop = start("cut")
    after_step = dying.after_step

    def die(step, optimizer):
        if step == 5:
            raise Killed
        after_step(step, optimizer)

    dying.after_step = die
    with pytest.raises(Killed):
        loop().run()
    again, resumed_method, loop = start("cut")
    resumed = loop()
    assert resumed.resumed and resumed.state["step"] == 4
    assert resumed.run().results(again) == whole.results(problem)
    assert same(values(again.model), values(problem.model))
    assert equal(resumed_method.found(), method.found())


def test_checkpoints_hold_no_mask_and_nothing_dense(make, make_settings, tmp_path):
    problem = make()
    method = MaskedTuning(offsets_at(random_masks(problem)), BIAS_RATE)
    Loop(problem, method, make_settings(checkpoint_seconds=-1.0), tmp_path).run()
    stored = load_file(tmp_path / "checkpoint.safetensors")
    kept = method.sizes()["offsets"]
    values_and_moments = sum(tensor.numel() for name, tensor in stored.items() if ".offset.values" in name)
    assert values_and_moments == 3 * kept + len(method.found()), "values, two moments, and one step counter each"
    assert not any(name.endswith("offset.weight") for name in stored)


# --- memory


def test_memory_is_below_that_of_fine_tuning():
    """Bytes of a BERT of two layers of 128, all of it tuned against 0.5 % of its offsets; weights, states and activations."""
    config = BertConfig(
        vocab_size=200, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512
    )
    settings = Settings(epochs=1, batch_size=4, learning_rate=1e-3, seed=0, precision="fp32")

    def drawn():
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
        return RandomRows.draw(Backbone("small", model, None), rows=12, length=16, seed=0)

    def peak(problem, method):
        weights = sum(each.nbytes for each in problem.backbone.model.parameters())
        with measure.Allocations() as allocations:
            loop = Loop(problem, method, settings)
            for rows in epoch_batches(problem.train.lengths, 4, 0, 0):
                loop.step([rows])
            allocations.mark("steps")
        return weights + allocations.peak["steps"]

    tuned = peak(drawn(), Method())
    whole = TaskProblem.whole(drawn(), SIZES)
    offsets = delta_pruned(whole, 0.005, replace(WALK, steps=1))
    masked = peak(whole, MaskedTuning(offsets, BIAS_RATE))
    assert masked < 0.75 * tuned, (masked, tuned)


# --- bad input


def test_offsets_of_another_architecture_are_refused(make, make_settings):
    offsets = offsets_at(random_masks(make(Architecture.freeze_bottom(L, 1))))
    with pytest.raises(InputError, match="offsets and architecture differ at layers.0.attention.key; give the offsets"):
        Loop(make(), MaskedTuning(offsets, BIAS_RATE), make_settings())
    problem = make()
    bent = offsets_at(random_masks(problem))
    name = "layers.1.feed_forward.output"
    bent[name] = Offset(bent[name].values, bent[name].indices, bent[name].shape[::-1])
    with pytest.raises(InputError, match=f"differ at {name}"):
        Loop(problem, MaskedTuning(bent, BIAS_RATE), make_settings())


def test_a_plain_problem_is_refused(make_problem, make_settings):
    with pytest.raises(InputError, match="wrap it in a TaskProblem"):
        Loop(make_problem(), MaskedTuning(None, BIAS_RATE), make_settings())


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_the_rate_of_biases_is_positive(rate):
    with pytest.raises(InputError, match="a bias learning rate of"):
        MaskedTuning(None, rate)


def test_an_unknown_start_is_refused():
    with pytest.raises(InputError, match="unknown start 'searched'; known: zero, warm"):
        MaskedTuning(None, BIAS_RATE, "searched")


def test_scores_of_nothing_are_refused(make):
    """A walk that has not moved: offsets are 0, and so is every score."""
    problem = make()
    with pytest.raises(InputError, match="mask gradients sum to 0"):
        pruning.scores(WALK.mask_gradients(problem))
    assert not any(isinstance(own.offset, CompactOffset) for own in owned(problem.model).values())
