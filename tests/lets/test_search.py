"""The search on tiny models: one step by hand, the schedule and its end, and bitwise the same across kills."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from paperlib.errors import InputError
from paperlib.lets import gumbel, operations, search
from paperlib.lets.architecture import Architecture
from paperlib.lets.bilevel import exact_mixed_product, replaying
from paperlib.lets.objective import OWN, Objective, reconstruction
from paperlib.lets.operations import Encoder
from paperlib.lets.problem import TaskProblem
from paperlib.lets.readout import ReadoutSizes
from paperlib.lets.search import Outcome, Search, Settings

SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
L = 2
LAYER = operations.layer(Encoder(L, 32, 64), 128)


@pytest.fixture
def make_search(make_problem):
    """``make(folder, ..., **settings)``: a search of 2 epochs of 3 steps on 12 + 3 rows that no early stop ends."""

    def make(folder=None, double=False, dropout=0.1, train=15, validation=0, **changed):
        problem = make_problem(train=train, validation=validation, dropout=dropout)
        if double:
            problem.backbone.model.double()
        usual = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "bias_learning_rate": 3e-2, "patience": 1000}
        usual |= {"alpha_learning_rate": 0.1, "xi": 0.1}
        return Search(TaskProblem.whole(problem, ReadoutSizes(5, 4)), Settings(**(usual | changed)), folder)

    return make


def values(module):
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def rows_of(search, step=0):
    """Rows of D1 and D2 of the first steps."""
    batches = [search._batches(part, per) for part, per in ((0, search.steps_per_epoch), (1, search._search_batches))]
    for _ in range(step):
        [next(stream) for stream in batches]
    return [next(stream) for stream in batches]


# --- the two parts of the training rows


@given(rows=st.integers(2, 300), seed=st.integers(0, 5))
def test_the_weights_get_four_fifths_of_the_rows(rows, seed):
    d1, d2 = search.parts(rows, seed)
    assert sorted([*d1, *d2]) == list(range(rows)) and len(d2)
    assert len(d1) == min(max(round(0.8 * rows), 1), rows - 1)
    assert all(np.array_equal(*pair) for pair in zip(search.parts(rows, seed), (d1, d2), strict=True))


def test_other_seeds_part_otherwise():
    assert len({tuple(search.parts(50, seed)[1]) for seed in range(5)}) == 5


def test_every_epoch_reads_its_part_once(make_search):
    """12 rows for W in 3 steps an epoch; 3 rows for alpha in one batch, again and again."""
    searching = make_search(train=15)
    d1, d2 = map(set, searching.parts)
    read = []
    batch = searching.problem.plain.batch

    def note(rows, indices):
        assert rows is searching.problem.train
        read.append(np.array(indices))
        return batch(rows, indices)

    searching.problem.plain.batch = note
    searching.run()
    ours, theirs = read[::2], read[1::2]
    assert len(read) == 2 * 6 and len(d1) == 12 and len(d2) == 3
    for epoch in (ours[:3], ours[3:]):
        assert sorted(np.concatenate(epoch)) == sorted(d1)
    assert all(set(rows) == d2 for rows in theirs)


# --- one step, by hand


def by_hand(searching, rows, g, temperature):
    """L1 of eq. (14) at these draws, with E_ops written out: (CE) 0.5 log(1 + E)^0.5."""
    alpha = searching.alpha.double()
    p = torch.softmax((alpha + g) / temperature, -1)
    own = p[..., 1]
    s1, s2, s3 = own.unbind(-1)
    attention = LAYER["scores_and_context"] + LAYER["output"]
    inputs = (1 - s1) * 0.005 * LAYER["qkv"] + s1 * LAYER["qkv"]
    expected = (s2 * (inputs + attention) + s3 * LAYER["feed_forward"]).sum()
    problem = searching.problem
    batch = problem.batch(problem.train, rows)
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    scores = problem.model(problem.frozen(**inputs), own)
    return functional.cross_entropy(scores, batch["labels"]) * 0.5 * torch.log(1 + expected / 1e9) ** 0.5


@pytest.mark.parametrize("xi", [0.0, 0.5])
def test_a_step_is_that_of_the_unrolled_loss_and_then_of_the_weights(make_search, monkeypatch, xi):
    """In float64 without dropout, noise given: G by autograd through W' = W - xi grad, then Adam's first step of alpha and of W."""
    draws = [
        gumbel.gumbel(torch.rand((L, 3, 2), dtype=torch.float64, generator=torch.Generator().manual_seed(s)))
        for s in (0, 1)
    ]
    searching = make_search(double=True, dropout=0.0, xi=xi)
    network, alpha, weights = searching.network, searching.alpha, searching.weights
    names = [name for name, _ in network.named_parameters()]
    with torch.no_grad():
        alpha += torch.randn(alpha.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        for weight in weights:
            weight += 0.05 * torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    start, start_alpha = values(network), alpha.detach().clone()
    d1, d2 = rows_of(searching)

    slopes = torch.autograd.grad(by_hand(searching, d1, draws[0], 4.0), weights, materialize_grads=True)
    with torch.no_grad():
        for weight, slope in zip(weights, slopes, strict=True):
            weight -= xi * slope
    value = by_hand(searching, d2, draws[0], 4.0)
    first, *v = torch.autograd.grad(value, [alpha, *weights], materialize_grads=True)
    network.load_state_dict(start)
    mixed = exact_mixed_product(lambda rows: by_hand(searching, rows, draws[0], 4.0), alpha, weights, v, d1)
    total = first - xi * mixed
    moved_alpha = start_alpha - 0.1 * total / (total.abs() + 1e-6)
    with torch.no_grad():
        alpha.copy_(moved_alpha)
    loss = by_hand(searching, d1, draws[1], 4.0)
    slopes = torch.autograd.grad(loss, weights)
    cut = min(1.0, 1 / (torch.cat([each.flatten() for each in slopes]).norm().item() + 1e-6))
    moved = {}
    for name, slope in zip(names, slopes, strict=True):
        rate = 3e-2 if name.startswith("layers.") and name.endswith(".bias") else 1e-2
        moved[name] = start[name] - rate * cut * slope / ((cut * slope).abs() + 1e-6)
    with torch.no_grad():
        alpha.copy_(start_alpha)

    # All four passes of alpha's gradient see the first draw, the pass of the weights the second.
    passes, forward = [], network.forward
    monkeypatch.setattr(network, "forward", lambda *given: (passes.append(1), forward(*given))[1])
    monkeypatch.setattr(gumbel, "noise", lambda _: draws[len(passes) >= (4 if xi else 1)])
    searching.step(d1, d2)
    assert len(passes) == (5 if xi else 2)
    torch.testing.assert_close(alpha.detach(), moved_alpha, rtol=0, atol=2e-4 if xi else 1e-9)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.detach(), moved[name], rtol=0, atol=2e-4 if xi else 1e-9)
    state = searching.state
    assert state["search_losses"] == [pytest.approx(value.item(), rel=1e-10)]
    assert state["train_losses"] == [pytest.approx(loss.item(), rel=1e-3 if xi else 1e-8)]
    assert state["corrections"] == [pytest.approx((xi * mixed.norm() / first.norm()).item(), rel=1e-3)]


def test_the_slope_is_the_exact_one_up_to_the_finite_difference(make_search, monkeypatch):
    """In float64: eq. (16) with its mixed derivative by autograd; xi = 0 is its first term at W."""
    searching = make_search(double=True, dropout=0.0, xi=0.5)
    g = gumbel.gumbel(torch.rand((L, 3, 2), dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    monkeypatch.setattr(gumbel, "noise", lambda _: g)
    train, other = (searching._rows(rows) for rows in rows_of(searching))
    found, before = searching.slope(train, other), values(searching.network)
    slopes = torch.autograd.grad(searching.loss(train), searching.weights, create_graph=False)
    with torch.no_grad():
        for weight, slope in zip(searching.weights, slopes, strict=True):
            weight -= 0.5 * slope
    first, *v = torch.autograd.grad(searching.loss(other), [searching.alpha, *searching.weights])
    searching.network.load_state_dict(before)
    mixed = exact_mixed_product(searching.loss, searching.alpha, searching.weights, v, train)
    torch.testing.assert_close(found.first, first, rtol=1e-10, atol=0)
    assert (found.correction - 0.5 * mixed).norm() < 1e-3 * found.correction.norm()
    assert found.correction.norm() > 1e-3 * found.first.norm(), "the second term counts"


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_noise_is_the_same_in_all_passes_of_one_gradient_alone(make_search, dropout):
    """Gumbel draws and dropout, from a replay; fresh otherwise."""
    searching = make_search(dropout=dropout)
    rows = searching._rows(rows_of(searching)[0])
    replays = [replaying(searching.loss, searching.weights) for _ in range(2)]
    found = [[replay(rows).item() for _ in range(2)] for replay in replays]
    assert found[0][0] == found[0][1] != found[1][0] == found[1][1]
    assert searching.loss(rows).item() != searching.loss(rows).item()


@pytest.mark.parametrize(("xi", "passes"), [(0.1, 5), (0.0, 2)])
def test_every_batch_has_one_frozen_pass(make_search, xi, passes):
    """Four passes of alpha, or one of first order, and one of the weights; of the frozen model at most two."""
    searching = make_search(xi=xi)
    own, frozen = [], []
    searching.network.register_forward_hook(lambda *_: own.append(1))
    for module in searching.problem.frozen.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda *_: frozen.append(1))
    searching.step(*rows_of(searching))
    assert len(own) == passes and len(frozen) == 2 * 6 * L


# --- a whole search


@pytest.mark.parametrize("form", ["L1", "L2", "L3"])
@pytest.mark.parametrize("xi", [0.1, 0.0])
def test_a_search_ends_in_an_architecture(make_search, form, xi):
    searching = make_search(form=form, xi=xi)
    backbone, before = values(searching.problem.backbone.model), values(searching.network)
    outcome = searching.run()
    assert same(values(searching.problem.backbone.model), backbone)
    moved = [name for name, tensor in values(searching.network).items() if not torch.equal(tensor, before[name])]
    assert len(moved) == len(before) and searching.alpha.detach().abs().min() > 0.01
    assert outcome.steps == 6 and not outcome.settled and outcome.skipped_updates == 0
    counts = {len(outcome.train_losses), len(outcome.search_losses), len(outcome.corrections), len(outcome.expected)}
    assert counts == {6}
    assert (np.array(outcome.corrections) > 0).all() == (xi > 0)
    kept = outcome.results()
    assert json.loads(json.dumps(kept)) == kept


def test_an_outcome_says_what_was_selected(make_search):
    searching = make_search()
    outcome = searching.run()
    found = Architecture(tuple(map(tuple, outcome.architecture)))
    own = torch.softmax(searching.alpha.detach(), -1)[..., OWN]
    assert found == Architecture.most_probable(own) == searching.architecture
    assert outcome.p_own == own.tolist()
    spent = 0.0
    for s1, s2, s3 in outcome.architecture:
        qkv = LAYER["qkv"] * (1 if s1 else 0.005)
        spent += s2 * (qkv + LAYER["scores_and_context"] + LAYER["output"]) + s3 * LAYER["feed_forward"]
    assert outcome.operations == pytest.approx(spent) == outcome.looks[-1]["operations"]
    last = outcome.looks[-1]
    assert last["step"] == 6 and last["tenths"] == 20 and last["architecture"] == outcome.architecture
    assert last["alpha"] == searching.alpha.tolist()


def test_operations_press_towards_sharing(make_search):
    """Where they are most of the loss every own branch loses."""
    assert np.max(make_search(form="L2", alpha=100.0).run().p_own) < 0.45


def test_the_overhead_is_the_whole_frozen_pass_and_flattens_l1(make_search):
    """The same saving of 1 MAC in 2 is a larger part of the loss than one in 6."""
    searches = [make_search(overhead=overhead) for overhead in (False, True)]
    shares = []
    for each in searches:
        p = torch.full((L, 3, 2), 0.5, dtype=torch.float64, requires_grad=True)
        expected = each.cost.expected(p)
        loss = each.objective(torch.ones((), dtype=torch.float64), expected)
        shares.append((expected.item(), (torch.autograd.grad(loss, p)[0][0, 2, OWN] / loss).item()))
    (without, steep), (with_it, flat) = shares
    assert with_it - without == pytest.approx(operations.total(Encoder(L, 32, 64), 128))
    assert steep > 2 * flat > 0


def test_the_same_constants_press_a_small_encoder_nine_times_as_hard_as_bert_large():
    """The slope of log L1 in a feed-forward's P(own), all selectors undecided, at length 128."""
    slopes = []
    for encoder in (Encoder(6, 384, 1536), Encoder(24, 1024, 4096)):
        p = torch.full((encoder.layers, 3, 2), 0.5, dtype=torch.float64, requires_grad=True)
        loss = Objective()(torch.ones((), dtype=torch.float64), reconstruction(encoder, 128, 0.005).expected(p))
        slopes.append((torch.autograd.grad(loss.log(), p)[0][0, 2, OWN]).item())
    assert slopes[0] / slopes[1] == pytest.approx(9.4, abs=0.1)


def test_logits_rest_while_they_are_postponed(make_search):
    searching = make_search(postponed=1.0, epochs=1)
    assert searching.total_steps == 6
    d1, d2 = rows_of(searching)
    for step in range(3):
        assert searching.temperature == 4.0 and not searching.alpha.any() and searching.tenths == 0
        searching.step(d1, d2)
        assert len(searching.state["train_losses"]) == step + 1 and not searching.state["search_losses"]
    searching.step(d1, d2)
    assert searching.alpha.all() and searching.tenths == 3 and len(searching.state["search_losses"]) == 1
    assert [look["tenths"] for look in searching.state["looks"]] == [3]


def test_validation_sees_the_architecture_selected_so_far_and_decides_nothing(make_search):
    searching = make_search(validation=4, interval=2, dropout=0.3)
    seen, scores = [], searching.problem.scores

    def note(rows, batch_size):
        assert rows is searching.problem.validation
        seen.append((searching.network.architecture, searching.architecture))
        return scores(rows, batch_size)

    searching.problem.scores = note
    outcome = searching.run()
    assert len(seen) == len(outcome.validation) == 3 and all(used == chosen for used, chosen in seen)
    assert searching.network.training and searching.network.architecture == Architecture.all_own(L)
    blind = make_search(validation=4, dropout=0.3).run()
    assert blind.validation == [] and blind.looks == outcome.looks and blind.train_losses == outcome.train_losses


def test_a_loss_that_is_not_finite_moves_nothing(make_search):
    searching = make_search(epochs=1)
    before, loss = values(searching.network), searching.problem.loss
    searching.problem.loss = lambda logits, batch: loss(logits, batch) * math.nan
    outcome = searching.run()
    assert outcome.skipped_updates == 2 * outcome.steps == 6
    assert same(values(searching.network), before) and not searching.alpha.any()
    kept = outcome.results()
    assert kept["train_losses"] == kept["search_losses"] == [None] * 3
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept


# --- schedule and early stop


def test_the_temperature_falls_every_tenth_of_an_epoch(make_search):
    """25 rows of D1 one by one: tenths after 2.5, 5, 7.5 ... steps."""
    searching = make_search(train=31, batch_size=1)
    assert searching.steps_per_epoch == 25
    for step in range(51):
        searching.state["step"] = step
        assert searching.temperature == pytest.approx(4 * math.exp(-0.065 * (10 * step // 25)), rel=1e-14)


def traced(searching, trace):
    """Gives alpha after each step in place of learning it: ``trace(step)`` owns or not, for all selectors."""
    searching._move_weights = lambda train: None

    def move(train, other):
        with torch.no_grad():
            searching.alpha[..., OWN] = 1.0 if trace(searching.state["step"]) else -1.0

    searching._move_alpha = move
    return searching


@pytest.mark.parametrize("changes", [[], [3], [0, 1, 2], [10, 12, 30]])
def test_a_search_ends_when_the_model_has_not_changed_for_three_tenths(make_search, changes):
    """20 rows of D1 one by one, a look every 2 steps; four equal looks. ``changes``: steps from which alpha is turned around."""
    searching = make_search(train=25, batch_size=1, epochs=3, patience=3)
    outcome = traced(searching, lambda step: sum(change <= step for change in changes) % 2).run()
    looks = [sum(change < 2 * n for change in changes) % 2 for n in range(1, 31)]
    expected = next(n for n in range(4, 31) if len(set(looks[n - 4 : n])) == 1)
    assert outcome.settled and outcome.steps == 2 * expected
    assert [look["tenths"] for look in outcome.looks] == list(range(1, expected + 1))


def test_a_search_that_never_settles_ends_with_its_epochs(make_search):
    searching = make_search(train=25, batch_size=1, epochs=1, patience=3)
    outcome = traced(searching, lambda step: step // 2 % 2).run()
    assert not outcome.settled and outcome.steps == 20 and len(outcome.looks) == 10


# --- determinism


def test_two_searches_are_bitwise_equal_whatever_else_draws(make_search):
    outcomes = []
    for noise in (0, 7):
        torch.rand(noise), np.random.rand(noise)
        outcomes.append(make_search(dropout=0.3, epochs=1).run())
    assert outcomes[0] == outcomes[1]


def test_another_seed_draws_another_search(make_search):
    one, other = (make_search(seed=seed, dropout=0.0, epochs=1).run() for seed in (0, 1))
    assert one.train_losses != other.train_losses and one.looks != other.looks


# --- killed and resumed


class Killed(Exception):
    pass


def dying(moment, at):
    """Wraps a moment so that its ``at``-th call ends the process."""
    calls = 0

    def call(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == at:
            raise Killed
        return moment(*args, **kwargs)

    return call


def resumable(make_search, xi, folder, often):
    return make_search(
        folder,
        validation=2,
        interval=2,
        xi=xi,
        dropout=0.3,
        patience=12,
        epochs=3,
        postponed=0.34,
        checkpoint_seconds=-1.0 if often else 1e9,
    )


@pytest.fixture(scope="module")
def remembered():
    return {}


@given(
    xi=st.sampled_from([0.1, 0.0]),
    often=st.booleans(),
    kills=st.lists(
        st.one_of(st.tuples(st.just("loss"), st.integers(1, 30)), st.tuples(st.just("evaluate"), st.integers(1, 4))),
        min_size=1,
        max_size=2,
    ),
)
@example(xi=0.1, often=True, kills=[("loss", 15)])  # at W - eps v of the fourth step
@example(xi=0.1, often=True, kills=[("loss", 6), ("loss", 7)])  # before W's step; in the next one's unrolled pass
@example(xi=0.1, often=True, kills=[("evaluate", 2)])  # between a step and its validation
@settings(max_examples=2, **SLOW)
def test_a_killed_search_goes_on_as_if_nothing_had_been(make_search, tmp_path_factory, remembered, xi, often, kills):
    """Killed once or twice in any pass of a step or in a validation, with a checkpoint before every step or none at all."""
    if xi not in remembered:
        searching = resumable(make_search, xi, None, False)
        remembered[xi] = searching.run(), values(searching.network), searching.alpha.detach().clone()
    folder = tmp_path_factory.mktemp("killed")
    for moment, at in kills:
        searching = resumable(make_search, xi, folder, often)
        setattr(searching.problem, moment, dying(getattr(searching.problem, moment), at))
        try:
            searching.run()
        except Killed:
            pass
    searching = resumable(make_search, xi, folder, False)
    assert searching.resumed == (folder / "checkpoint.safetensors").is_file()
    outcome, weights, alpha = remembered[xi]
    assert searching.run() == outcome
    assert same(values(searching.network), weights) and torch.equal(searching.alpha, alpha)


def test_a_resumed_search_remembers_what_the_early_stop_has_seen(make_search, tmp_path):
    def start(folder):
        searching = make_search(
            folder, train=25, batch_size=1, epochs=3, patience=3, checkpoint_seconds=-1.0, dropout=0.0
        )
        return traced(searching, lambda step: step >= 3)

    whole = start(None).run()
    cut = start(tmp_path)
    cut.step = dying(cut.step, 8)
    with pytest.raises(Killed):
        cut.run()
    again = start(tmp_path)
    assert again.resumed and again.state["step"] == 7
    outcome = again.run()
    assert (outcome.steps, outcome.settled, outcome.looks) == (whole.steps, whole.settled, whole.looks)
    assert outcome.settled and outcome.steps == 10


def test_checkpoints_hold_what_is_trained_and_not_the_backbone(make_search, tmp_path):
    searching = make_search(tmp_path, checkpoint_seconds=-1.0)
    searching.run()
    stored = {each.split(".", 1)[1] for each in load_file(tmp_path / "checkpoint.safetensors") if each[:6] == "model."}
    assert stored == {"alpha", *(name for name, _ in searching.network.named_parameters())}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.safetensors"]


# --- bad input


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"epochs": 0}, "search: epochs must be a finite number from 1, got 0"),
        ({"batch_size": 0}, "search: batch_size must be"),
        ({"interval": -1}, "search: interval must be"),
        ({"interval": 2}, "search: validation every so many steps, but no validation rows"),
        ({"xi": -1e-3}, "search: xi must be a finite number from 0, got -0.001"),
        ({"postponed": math.inf}, "search: postponed must be"),
        ({"learning_rate": 0.0}, "search: learning_rate must be a finite number above 0"),
        ({"alpha_learning_rate": math.nan}, "search: alpha_learning_rate must be"),
        ({"clip_norm": 0.0}, "search: clip_norm must be"),
        ({"temperature": 0.0}, "the temperature must be a finite number above 0"),
        ({"anneal": -0.1}, "neither may be negative"),
        ({"patience": 0}, "a patience of 0 tenths"),
        ({"density": 0.0}, r"it must lie in \(0, 1\]"),
        ({"density": 1.5}, r"it must lie in \(0, 1\]"),
        ({"form": "L4"}, "unknown objective 'L4'"),
        ({"beta": 0.0}, "objective: beta must be"),
        ({"train": 1}, "1 training rows cannot be parted"),
    ],
)
def test_what_cannot_be_searched_is_refused(make_search, changed, told):
    with pytest.raises(InputError, match=told) as error:
        make_search(**changed)
    assert "\n" not in str(error.value)


def test_a_sub_task_that_shares_already_is_refused(make_problem):
    problem = TaskProblem(make_problem(), Architecture.freeze_bottom(L, 1))
    with pytest.raises(InputError, match="shares parts already; give the super-network"):
        Search(problem, Settings(epochs=1))


def test_settings_are_read_from_a_runs_parameters():
    class Parameters:
        epochs, batch_size, xi, form, unknown = 3, 8, 1e-3, "L2", "left alone"

    assert Settings.of(Parameters) == Settings(epochs=3, batch_size=8, xi=1e-3, form="L2")


def test_defaults_are_the_papers():
    """Appendix A.2: T_0 = 4, exp(-0.065), three tenths, 5e-4 for the logits, 2e-5 for all weights, 0.5 and 0.5."""
    told = Settings(epochs=1)
    assert (told.temperature, told.anneal, told.patience) == (4.0, 0.065, 3)
    assert (told.alpha_learning_rate, told.learning_rate, told.bias_learning_rate) == (5e-4, 2e-5, 2e-5)
    assert (told.alpha, told.beta, told.length) == (0.5, 0.5, 128)
    assert {each for each in Outcome.__dataclass_fields__} >= {"architecture", "looks", "settled"}
