"""The structure search on tiny models: what it reads when, what it moves, and bitwise the same across kills."""

import copy
import gc
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from paperlib.errors import InputError
from paperlib.s3delta.bilevel import ORDERS
from paperlib.s3delta.gates import Gates
from paperlib.s3delta.positions import candidates
from paperlib.s3delta.search import Search, Settings
from paperlib.s3delta.supernet import Supernet
from paperlib.tasks import splits
from paperlib.training.launches import Launches

SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
PASSES = {"second": 5, "first": 2, "one-level": 1}
BUDGET = 500


@pytest.fixture
def make_search(make_problem):
    """``make(backbone, folder, space, validation, dropout, **settings)``: a search of 2 epochs of 2 steps on 15 rows, validated every 2 steps."""

    def make(backbone="tiny-bert", folder=None, space="M", validation=6, dropout=0.1, train=15, **changed):
        problem = make_problem("rte", backbone, train=train, validation=validation, dropout=dropout)
        torch.manual_seed(0)
        supernet = Supernet(problem.model, candidates(problem.model, space))
        usual = {"budget": BUDGET, "epochs": 2, "batch_size": 4, "interval": 2, "seed": 0, "precision": "fp32"}
        return Search(problem, supernet, Settings(**(usual | {"learning_rate": 1e-2} | changed)), folder)

    return make


def values(search):
    return {name: parameter.detach().clone() for name, parameter in search.problem.model.named_parameters()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- a whole search


@pytest.mark.parametrize("gradient", ["global", "local", "implicit"])
@pytest.mark.parametrize("backbone", ["tiny-bert", "tiny-t5"])
def test_a_search_ends_in_a_structure_that_fills_its_budget(make_search, tmp_path, backbone, gradient):
    search = make_search(backbone, tmp_path, gradient=gradient)
    sizes, outcome = search.supernet.sizes, search.run()
    assert len(outcome.delta_losses) == len(outcome.alpha_losses) == search.total_steps == 4
    assert outcome.skipped_updates == 0
    assert len(outcome.validation) == len(outcome.alphas) == len(outcome.probabilities) == 2
    assert float(np.dot(sizes.numpy(), outcome.p)) == pytest.approx(BUDGET, rel=1e-12)
    spent = int(sizes[outcome.chosen].sum())
    others = np.delete(sizes.numpy(), outcome.chosen)
    assert spent <= BUDGET < spent + others.min()
    assert np.abs(outcome.alphas[-1]).max() > 0.1
    kept = outcome.results()
    assert json.loads(json.dumps(kept)) == kept and "alphas" not in kept


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_every_variant_runs_and_moves_w_and_alpha_alone(make_search, order, hard):
    """The backbone stays as it was, bit for bit; every delta that can and the head have moved."""
    search = make_search(order=order, hard=hard)
    before = values(search)
    outcome = search.run()
    assert outcome.skipped_updates == 0 and np.isfinite(outcome.delta_losses).all()
    after = values(search)
    frozen = [name for name in before if name not in search.weights]
    assert len(frozen) > 20 and all(torch.equal(before[name], after[name]) for name in frozen)
    assert not torch.equal(before["classifier.weight"], after["classifier.weight"])
    moved = [name for name in search.weights if not torch.equal(before[name], after[name])]
    assert len(moved) > (0.2 if hard else 0.9) * len(search.weights)
    assert search.alpha.detach().abs().max() > 0.05


def test_a_search_runs_in_bf16(make_search):
    outcome = make_search(precision="bf16").run()
    assert outcome.skipped_updates == 0 and np.abs(outcome.alphas[-1]).max() > 0.1


def test_a_structure_does_not_depend_on_a_constant_in_alpha(make_search):
    search = make_search()
    alpha = torch.randn(len(search.supernet.sizes), dtype=torch.float64)
    assert search.structure(alpha)[1] == search.structure(alpha + 17.0)[1]


# --- rows


class Reading:
    """Notes which training rows every batch is made of."""

    def __init__(self, problem):
        self.problem, self.batches, self.batch = problem, [], problem.batch
        problem.batch = self.note

    def note(self, rows, indices):
        assert rows is not self.problem.test, "a search never reads test rows"
        if rows is self.problem.train:
            self.batches.append(np.array(indices))
        return self.batch(rows, indices)


@pytest.mark.parametrize("order", ORDERS)
def test_every_epoch_reads_each_half_once(make_search, order):
    """15 rows: one dropped, 7 for w and 7 for alpha, the halves that frames would be cut into; an order of its own for each half and epoch."""
    search = make_search(order=order, epochs=3)
    search.problem.train.lengths[:] = 9  # so that it is chance alone that orders rows
    reading = Reading(search.problem)
    search.run()
    frame = pd.DataFrame({"row": np.arange(15)})
    ours, theirs = (set(half["row"]) for half in splits.halves(frame, seed=0))
    assert len(reading.batches) == 2 * search.total_steps == 2 * 3 * 2
    seen = {}
    for name, half, batches in (("delta", ours, reading.batches[::2]), ("alpha", theirs, reading.batches[1::2])):
        epochs = [np.concatenate(batches[start : start + 2]) for start in (0, 2, 4)]
        assert all(set(epoch) == half and len(epoch) == 7 for epoch in epochs)
        places = {row: place for place, row in enumerate(sorted(half))}
        seen[name] = [[places[row] for row in epoch] for epoch in epochs]
    orders = [tuple(epoch) for name in seen for epoch in seen[name]]
    assert len(set(orders)) == 6


@pytest.mark.parametrize(
    ("rows", "size", "epochs", "steps"), [(250, 16, 60, 480), (400, 16, 40, 520), (251, 16, 1, 8), (8, 4, 2, 2)]
)
def test_the_length_of_a_search(rows, size, epochs, steps):
    """T = epochs * ceil(|D_train| / 2 / batch size), the odd row dropped."""
    assert Settings(1.0, epochs, size, 1, 0).total_steps(rows) == steps


# --- the optimizer


def test_both_rates_fall_linearly_to_zero(make_search):
    """Without warm-up; the rates of alpha sum to 0.05 (T + 1)."""
    search = make_search(epochs=5, learning_rate=3e-4)
    rates = []

    def note(optimizer, args, kwargs):
        rates.append([(group["lr"], group["params"][0].grad is not None) for group in optimizer.param_groups])

    search.optimizer.register_step_pre_hook(note)
    search.run()
    steps = search.total_steps
    of_alpha = [alpha for _, (alpha, moving) in rates if moving]
    np.testing.assert_allclose(of_alpha, 0.1 * (1 - np.arange(steps) / steps), rtol=1e-12)
    assert sum(of_alpha) == pytest.approx(0.05 * (steps + 1))
    of_weights = [weight for (weight, moving), _ in rates if moving]
    np.testing.assert_allclose(of_weights, np.repeat(3e-4 * (1 - np.arange(steps) / steps), 2), rtol=1e-12)
    assert search.schedule.get_last_lr() == [0.0, 0.0]
    assert all(group["weight_decay"] == 0 for group in search.optimizer.param_groups)


def test_the_first_step_moves_every_heard_logit_by_the_rate(make_search):
    """AdamW: +-0.1 whatever the gradient's size."""
    search = make_search(dropout=0.0)
    search.step(*search._remaining_of_epoch()[0])
    moved = search.alpha.detach().abs()
    torch.testing.assert_close(moved[moved > 0.05], torch.full_like(moved[moved > 0.05], 0.1), rtol=0.05, atol=0)
    assert (moved > 0.05).float().mean() > 0.5


# --- cost


class Calls(TorchDispatchMode):
    """Counts how often a value leaves its tensor."""

    asked = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.asked += function.overloadpacket.__name__ in ("_local_scalar_dense", "is_nonzero", "nonzero", "equal")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("backbone", ["tiny-bert", "tiny-t5"])
@pytest.mark.parametrize("order", ORDERS)
def test_passes_per_step_and_values_asked_of_the_device(make_search, backbone, order):
    """Forward passes are counted on the model itself. Asked values do not grow with the number of modules (space M against L)."""
    asked = {}
    for space in "ML":
        search, passes = make_search(backbone, space=space, order=order, dropout=0.0), []
        search.problem.model.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        batches = search._remaining_of_epoch()[0]
        search.step(*batches)
        assert len(passes) == PASSES[order]
        with Calls() as calls:
            search.bilevel.step(*(search.problem.batch(search.problem.train, rows) for rows in batches))
        asked[space] = calls.asked
    assert asked["M"] == asked["L"] <= 4 + 4 * PASSES[order]


def storages(shapes):
    """Storages of all living tensors of one of these shapes."""
    tensors = [each for each in gc.get_objects() if type(each) in (torch.Tensor, torch.nn.Parameter)]
    return {each.untyped_storage().data_ptr() for each in tensors if each.shape in shapes}


def test_one_backbone_in_memory(make_search):
    """In every pass of a step there are as many matrices shaped like frozen weights as before it: no frozen weight is copied."""
    search = make_search(dropout=0.0, interval=4)
    trained = {weight.shape for weight in search.weights.values()}
    frozen = [
        weight for weight in search.problem.model.parameters() if weight.dim() == 2 and weight.shape not in trained
    ]
    shapes = {weight.shape for weight in frozen}
    search.step(*search._remaining_of_epoch()[0])
    gc.collect()
    before, seen = storages(shapes), []
    assert before >= {weight.untyped_storage().data_ptr() for weight in frozen} and len(frozen) > 12
    search.problem.model.register_forward_pre_hook(lambda *_: seen.append(storages(shapes)))
    search.step(*search._remaining_of_epoch()[0])
    assert seen == [before] * 5


def test_checkpoints_hold_what_is_trained_and_not_the_backbone(make_search, tmp_path):
    search = make_search(folder=tmp_path, checkpoint_seconds=-1.0)
    search.run()
    names = {
        name.split(".", 1)[1] for name in load_file(tmp_path / "checkpoint.safetensors") if name.startswith("model.")
    }
    assert names == {*search.weights, "alpha"}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.safetensors"]


# --- validation and choice


class Judged:
    """A problem whose validation metrics are given; notes the gates, and the mode, under which it was judged."""

    def __init__(self, search, metrics):
        self.search, self.metrics, self.gates, self.alphas = search, metrics, [], []
        self.scores, search.problem.scores = search.problem.scores, self.score
        search.problem.evaluate = self.judge
        self.gated, search.supernet.gated = search.supernet.gated, self.gate

    def gate(self, z):
        self.z = z.detach().clone()
        return self.gated(z)

    def score(self, rows, batch_size):
        assert rows is self.search.problem.validation
        self.gates.append(self.z)
        self.alphas.append(self.search.alpha.detach().clone())
        return self.scores(rows, batch_size)

    def judge(self, rows, scores):
        return {"accuracy": self.metrics[len(self.gates) - 1]}


@example(metrics=[0.5, 0.25, 0.5, 0.0])
@given(metrics=st.lists(st.sampled_from([0.0, 0.25, 0.5]), min_size=1, max_size=4))
@settings(max_examples=6, **SLOW)
def test_the_best_validation_is_kept_and_ties_go_to_the_later(make_search, metrics):
    search = make_search(
        train=4, validation=2, batch_size=2, epochs=3 * len(metrics) + 2, interval=3, order="one-level"
    )
    judged = Judged(search, metrics)
    outcome = search.run()
    best = max(number for number, metric in enumerate(metrics) if metric == max(metrics))
    assert outcome.selected_step == 3 * (best + 1)
    assert outcome.validation == [{"accuracy": metric} for metric in metrics], "the last two steps are not judged"
    assert outcome.alphas == [alpha.tolist() for alpha in judged.alphas]
    assert outcome.p == outcome.probabilities[best] == search.gates.p(judged.alphas[best]).tolist()
    assert outcome.chosen == search.structure(judged.alphas[best])[1]


@pytest.mark.parametrize("hard", [False, True])
def test_validation_sees_gates_of_p_or_the_hard_structure(make_search, hard):
    search = make_search(hard=hard, epochs=1)
    judged = Judged(search, [0.5])
    outcome = search.run()
    if hard:
        assert judged.gates[0].nonzero().flatten().tolist() == sorted(outcome.chosen) and judged.gates[0].max() == 1
    else:
        torch.testing.assert_close(judged.gates[0].double(), torch.tensor(outcome.p).double(), rtol=1e-6, atol=0)
    assert search.problem.model.training, "training goes on in training mode"


# --- determinism


def test_two_searches_are_bitwise_equal_whatever_else_draws(make_search):
    outcomes = []
    for noise in (0, 7):
        torch.rand(noise), np.random.rand(noise)
        outcomes.append(make_search(dropout=0.3).run())
    assert outcomes[0] == outcomes[1]


def test_another_seed_draws_other_gates_halves_and_batches(make_search):
    one, other = (make_search(seed=seed, dropout=0.0).run() for seed in (0, 1))
    assert one.delta_losses != other.delta_losses and one.alphas != other.alphas


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


def resumable(make_search, backbone, order, folder, often):
    return make_search(
        backbone,
        folder,
        validation=2,
        order=order,
        dropout=0.3,
        epochs=3,
        checkpoint_seconds=-1.0 if often else 1e9,
    )


def goes_on(make_search, folder, whole, backbone, order, often, kills):
    """Killed at each of ``kills`` in turn, then run to its end: all as in the ``whole`` search."""
    for moment, at in kills:
        search = resumable(make_search, backbone, order, folder, often)
        setattr(search.problem, moment, dying(getattr(search.problem, moment), at))
        try:
            search.run()
        except Killed:
            pass
    search = resumable(make_search, backbone, order, folder, False)
    assert search.resumed == (folder / "checkpoint.safetensors").is_file()
    outcome, weights, alpha = whole
    assert search.run() == outcome
    assert same(values(search), weights) and torch.equal(search.alpha, alpha)


def uninterrupted(make_search, backbone, order):
    search = resumable(make_search, backbone, order, None, False)
    return search.run(), values(search), search.alpha.detach().clone()


@pytest.fixture(scope="module")
def remembered():
    return {}


@given(
    order=st.sampled_from(ORDERS),
    often=st.booleans(),
    kills=st.lists(
        st.one_of(
            st.tuples(st.just("loss"), st.integers(1, 30)),
            st.tuples(st.sampled_from(["scores", "evaluate"]), st.integers(1, 3)),
        ),
        min_size=1,
        max_size=2,
    ),
)
@example(order="second", often=True, kills=[("loss", 14)])  # at w - eps v of the third step, the first of an epoch
@example(
    order="second", often=True, kills=[("loss", 5), ("loss", 6)]
)  # before w's step; in the virtual pass of the next
@example(order="second", often=True, kills=[("evaluate", 2)])  # between a step and its validation
@settings(max_examples=3, **SLOW)
def test_a_killed_search_goes_on_as_if_nothing_had_been(make_search, tmp_path_factory, remembered, order, often, kills):
    """Killed once or twice in any pass of a step or in a validation, with a checkpoint before every step or none at all."""
    if order not in remembered:
        remembered[order] = uninterrupted(make_search, "tiny-bert", order)
    goes_on(make_search, tmp_path_factory.mktemp("killed"), remembered[order], "tiny-bert", order, often, kills)


def test_a_killed_search_on_a_text_to_text_model_goes_on_too(make_search, tmp_path):
    whole = uninterrupted(make_search, "tiny-t5", "second")
    goes_on(make_search, tmp_path, whole, "tiny-t5", "second", True, [("loss", 14), ("evaluate", 1)])


def test_a_resumed_search_does_not_start_over(make_search, tmp_path):
    """Only what came after the last checkpoint is done again, at the rates of its steps."""
    search = resumable(make_search, "tiny-bert", "second", tmp_path, True)
    search.problem.loss = dying(search.problem.loss, 18)
    with pytest.raises(Killed):
        search.run()
    again = resumable(make_search, "tiny-bert", "second", tmp_path, False)
    assert again.resumed and again.state["step"] == 3 and len(again.alphas) == 1
    assert again.schedule.get_last_lr() == pytest.approx([1e-2 / 2, 0.1 / 2])


def test_without_a_folder_nothing_is_written(make_search, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_search(checkpoint_seconds=-1.0).run()
    assert not list(tmp_path.iterdir())


# --- bad input


def test_losses_that_are_not_finite_become_none_in_a_record(make_search):
    search = make_search(epochs=1)
    outcome = search.run()
    broken = copy.copy(outcome)
    object.__setattr__(broken, "alpha_losses", [float("nan"), 1.0])
    assert broken.results()["alpha_losses"] == [None, 1.0]


def test_a_search_needs_validation_rows(make_search):
    with pytest.raises(InputError, match="validation rows; use the s3delta protocol"):
        make_search(validation=0)


@pytest.mark.parametrize("interval", [0, -1, 5])
def test_validation_must_come_within_the_search(make_search, interval):
    with pytest.raises(InputError, match=f"every {interval} steps in a search of 4; give an interval between 1 and 4"):
        make_search(interval=interval)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"train": 1}, "cannot be halved"),
        ({"budget": 0}, "a budget of 0 scalars"),
        ({"budget": 10**9}, "all modules together"),
        ({"tau": 0.0}, "temperature tau"),
        ({"beta": -1.0}, "temperature beta"),
        ({"gradient": "none"}, "unknown structural gradient"),
        ({"order": "third"}, "unknown search order"),
    ],
)
def test_what_cannot_be_searched_is_refused(make_search, changed, told):
    with pytest.raises(InputError, match=told):
        make_search(**changed)


def test_settings_are_read_from_a_runs_parameters():
    told = Settings(100.0, 2, 4, 2, 0, tau=0.3)
    assert Settings.of(replace(told, budget=1.389), 100.0) == told and isinstance(
        Gates(torch.tensor([1, 200]), told.budget, told.tau), Gates
    )


# --- what the device is asked


HOST_READS = {
    getattr(torch.Tensor, name)
    for name in (
        "item",
        "tolist",
        "cpu",
        "numpy",
        "nonzero",
        "__bool__",
        "__int__",
        "__float__",
        "__index__",
        "__array__",
    )
}


class NoHostReads(TorchFunctionMode):
    """Within this context no tensor's values may be read by the host, as a GPU would have to be waited for; nor copied to a CPU."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        # A device taken from another tensor is the model's own, here the CPU.
        to_host = function is torch.Tensor.to and "cpu" in [each for each in args[1:] if isinstance(each, str)]
        assert function not in HOST_READS and not to_host, f"a value leaves its tensor: {function}"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("backbone", ["tiny-bert", "tiny-t5"])
def test_no_step_waits_for_the_device(make_search, monkeypatch, backbone, order, hard):
    """From the gates to the last update, on batches that are there already, without a mask, whose sum transformers asks for in every pass."""
    search = make_search(backbone, order=order, hard=hard, dropout=0.0, interval=4)
    train, rows = search.problem.train, search.halves[0][:4]
    batch = search.problem.batch(train, rows)
    del batch["attention_mask"]
    monkeypatch.setattr(search.problem, "batch", lambda *given: batch)
    before = values(search)
    for step in range(3):
        with NoHostReads(), Launches() as launches:
            search.step(rows, rows)
        assert launches.waits == 0, step
    assert not same(before, values(search)) and search.state["delta_losses"] == []
    search._read()
    losses = search.state["delta_losses"] + search.state["alpha_losses"]
    assert len(losses) == 6 and np.isfinite(losses).all() and search.state["skipped"] == 0 and search.unread == []


def test_a_read_value_is_seen(make_search):
    with NoHostReads(), pytest.raises(AssertionError, match="a value leaves its tensor"):
        torch.ones(3).tolist()


def test_skipped_updates_are_counted_when_they_are_read(make_search):
    search = make_search(interval=4)
    weight = next(iter(search.weights.values()))
    rows = search.halves[0][:4]
    for scale in (1.0, float("nan"), 1.0):
        with torch.no_grad():
            kept = weight.clone()
            weight *= scale
        search.step(rows, rows)
        if scale != scale:
            with torch.no_grad():
                weight.copy_(kept)
    search._read()
    assert search.state["skipped"] == 2 and np.isnan(search.state["delta_losses"]).tolist() == [False, True, False]
