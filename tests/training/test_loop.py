"""The training loop: against a plain replay, bitwise across kills, and what it may look at when."""

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from paperlib import tasks
from paperlib.dps.dense import DPSDense
from paperlib.errors import InputError
from paperlib.training import Loop, Method, Outcome
from paperlib.training.batches import epoch_batches

SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def weights(problem):
    return [parameter.detach().clone() for parameter in problem.model.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- the mathematics


def replay(problem, told):
    """Vanilla training in plain torch, every step on its whole batch; losses and how often the gradient was clipped."""
    model, rows = problem.model, problem.train
    parameters = dict(model.named_parameters())
    moments = {name: [torch.zeros_like(p), torch.zeros_like(p)] for name, p in parameters.items()}
    per_epoch = math.ceil(math.ceil(len(rows) / told.batch_size) / told.accumulation)
    total = told.epochs * per_epoch
    warmup = math.ceil(told.warmup_ratio * total)
    losses, clipped, t = [], 0, 0
    for epoch in range(told.epochs):
        batches = epoch_batches(rows.lengths, told.batch_size, told.seed, epoch)
        for start in range(0, len(batches), told.accumulation):
            indices = np.concatenate(batches[start : start + told.accumulation])
            ids = [torch.from_numpy(rows.input_ids[i].astype(np.int64)) for i in indices]
            kinds = [torch.from_numpy(rows.token_type_ids[i].astype(np.int64)) for i in indices]
            padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
            mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
            kinds = torch.nn.utils.rnn.pad_sequence(kinds, batch_first=True)
            logits = model(input_ids=padded, attention_mask=mask, token_type_ids=kinds).logits.float()
            target = torch.from_numpy(rows.labels[indices])
            loss = (
                functional.cross_entropy(logits, target)
                if target.dtype == torch.int64
                else ((logits[:, 0] - target) ** 2).mean()
            )
            model.zero_grad()
            loss.backward()
            losses.append(loss.item())
            norm = torch.sqrt(sum((p.grad**2).sum() for p in parameters.values()))
            clipped += int(norm > told.clip_norm)
            rate = told.learning_rate * (t / warmup if t < warmup else (total - t) / (total - warmup))
            t += 1
            for name, p in parameters.items():
                g = p.grad * min(1.0, told.clip_norm / (norm.item() + 1e-6))
                m, v = moments[name]
                m.copy_(0.9 * m + 0.1 * g)
                v.copy_(0.999 * v + 0.001 * g * g)
                decay = 0.0 if name.endswith("bias") or "LayerNorm" in name else told.weight_decay
                with torch.no_grad():
                    p.mul_(1 - rate * decay)
                    p.sub_(rate * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8))
    return losses, clipped


@pytest.mark.parametrize(
    "task, changed, clips",
    [
        ("rte", {"clip_norm": 1e9}, False),
        ("rte", {"clip_norm": 1e-3, "accumulation": 2, "epochs": 3}, True),
        ("stsb", {"clip_norm": 0.2, "accumulation": 2, "warmup_ratio": 0.5, "weight_decay": 0.3}, True),
        ("mnli", {"warmup_ratio": 0.0, "weight_decay": 0.0}, None),
    ],
)
def test_vanilla_training_equals_a_plain_replay(make_problem, make_settings, task, changed, clips):
    """Losses and weights, in double precision: AdamW, warm-up and decay, clipping, and micro-batches of 4, 4 and 2 rows."""
    ours, plain = (make_problem(task, dropout=0.0) for _ in range(2))
    ours.model.double(), plain.model.double()
    told = make_settings(**changed)
    start = weights(ours)
    outcome = Loop(ours, Method(), told).run()
    losses, clipped = replay(plain, told)
    assert clips is None or clipped == (len(losses) if clips else 0)
    np.testing.assert_allclose(outcome.losses, losses, rtol=1e-6)
    for one, other in zip(weights(ours), weights(plain), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert not same(start, weights(ours))


class Gradients(Method):
    """Keeps the gradients it sees before clipping."""

    def attach(self, model, total_steps):
        self.model = model

    def after_backward(self, step):
        self.seen = [p.grad.clone() for p in self.model.parameters() if p.grad is not None]


@pytest.mark.parametrize("backbone", ["tiny-bert", "tiny-t5"])
@pytest.mark.parametrize("task", ["rte", "stsb", "copa", "multirc", "record"])
def test_accumulation_equals_the_big_batch(make_problem, make_settings, task, backbone):
    """Uneven micro-batches, and label texts of uneven length: every term of the mean counts the same."""
    found = []
    for cuts in ([], [1, 6]):
        problem, method = make_problem(task, backbone, train=9, dropout=0.0), Gradients()
        problem.model.double()
        if problem.backbone.text_to_text:
            problem.train = replace(problem.train, labels=[np.arange(5, 6 + row % 4) for row in range(9)])
        loop = Loop(problem, method, make_settings(accumulation=3))
        loop.step(np.split(np.arange(9), cuts))
        found.append((loop.state["losses"], method.seen))
    (one_loss, one), (other_loss, other) = found
    assert one_loss == pytest.approx(other_loss, rel=1e-5)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


# --- steps in place of epochs, and warm-up


class Rows(Method):
    """Keeps the rows of every micro-batch, told by their labels and ids, and of the epoch it prepared on."""

    def __init__(self):
        self.seen = []

    def prepare(self, problem, batches):
        self.prepared = [batch.tolist() for batch in batches]

    def loss(self, problem, batch):
        self.seen.append({name: tensor.tolist() for name, tensor in batch.items()})
        return super().loss(problem, batch)


def seen_rows(problem, told, folder=None):
    method = Rows()
    loop = Loop(problem, method, told, folder)
    return loop, loop.run(), method


@pytest.mark.parametrize("accumulation, steps", [(1, 1), (1, 4), (1, 7), (2, 3), (2, 5)])
def test_steps_are_a_beginning_of_the_epochs(make_problem, make_settings, accumulation, steps):
    """Ten rows in batches of 4: 3 steps an epoch, or 2. ``epochs`` counts no more, be it too few or too many."""
    told = make_settings(epochs=1, steps=steps, accumulation=accumulation)
    loop, outcome, cut = seen_rows(make_problem(), told)
    *_, whole = seen_rows(make_problem(), make_settings(epochs=4, accumulation=accumulation))
    assert loop.total_steps == len(outcome.losses) == steps == told.total_steps(10)
    per_epoch = told.steps_per_epoch(10)
    done, rest = divmod(steps, per_epoch)
    micro_batches = 3 * done + rest * accumulation
    assert cut.seen == whole.seen[:micro_batches] and len(cut.seen) == micro_batches
    assert outcome.selected_step == steps


def test_the_epoch_prepared_on_is_none_that_training_sees(make_problem, make_settings):
    for changed in ({"steps": 7}, {"steps": 6}, {"epochs": 2}):
        told = make_settings(**changed)
        problem = make_problem()
        *_, method = seen_rows(problem, told)
        lengths = problem.train.lengths
        trained = [
            [batch.tolist() for batch in epoch_batches(lengths, 4, told.seed, epoch)]
            for epoch in range(math.ceil(told.total_steps(10) / 3))
        ]
        assert sorted(sum(method.prepared, [])) == list(range(10)) and method.prepared not in trained


def test_a_cut_epoch_is_validated_at_its_end(make_problem, make_settings, tmp_path):
    _, outcome, _ = seen_rows(make_problem(validation=4), make_settings(steps=4), tmp_path)
    assert len(outcome.validation) == 2 and outcome.selected_step in (3, 4)


@pytest.mark.parametrize(
    "changed, factors",
    [
        ({"steps": 5, "warmup_steps": 2}, [0, 1 / 2, 1, 2 / 3, 1 / 3]),
        ({"steps": 4, "warmup_ratio": 0.5}, [0, 1 / 2, 1, 1 / 2]),
        ({"steps": 4, "warmup_ratio": 0.5, "warmup_steps": 1}, [0, 1, 2 / 3, 1 / 3]),
        ({"epochs": 2, "warmup_steps": 4}, [0, 1 / 4, 2 / 4, 3 / 4, 1, 1 / 2]),
        ({"epochs": 2, "warmup_ratio": 0.4}, [0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]),
        ({"steps": 2, "warmup_ratio": 0.0}, [1, 1 / 2]),
    ],
)
def test_the_rate_rises_for_the_warm_up_and_falls_to_zero_at_the_last_step(
    make_problem, make_settings, changed, factors
):
    class Rates(Method):
        def __init__(self):
            self.seen = []

        def after_step(self, step, optimizer):
            self.seen.append(optimizer.param_groups[0]["lr"] / 1e-3)

    method = Rates()
    loop = Loop(make_problem(), method, make_settings(**changed))
    loop.run()
    assert method.seen == pytest.approx(factors)
    assert loop.schedule.get_last_lr()[0] == 0


def test_dps_keeps_its_clock_by_the_steps_given(make_problem, make_settings):
    method = DPSDense(0.5, 0.5, "grad_zero")
    Loop(make_problem(), method, make_settings(epochs=9, steps=4)).run()
    assert (method.clock.total_steps, method.clock.stage_steps) == (4, 2)


# --- determinism


METHODS = {
    "vanilla": Method,
    "grad_zero": lambda: DPSDense(0.5, 0.25, "grad_zero"),
    "freeze": lambda: DPSDense(0.5, 0.25, "freeze"),
}


@pytest.mark.parametrize("name", METHODS)
def test_two_runs_are_bitwise_equal_whatever_else_draws(make_problem, make_settings, name):
    def run(noise):
        problem = make_problem(dropout=0.3)
        torch.rand(noise), np.random.rand(noise)
        return Loop(problem, METHODS[name](), make_settings()).run(), weights(problem)

    (one, first), (other, second) = run(0), run(7)
    assert one.losses == other.losses and one.test == other.test
    np.testing.assert_array_equal(one.scores, other.scores)
    assert same(first, second)


def test_another_seed_is_another_run(make_problem, make_settings):
    one, other = (Loop(make_problem(), Method(), make_settings(seed=seed)).run() for seed in (0, 1))
    assert one.losses != other.losses


# --- killed and resumed: 3 epochs of 4 steps; DPS with 3 steps a stage, so that stages and epochs cut each other


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


def resumable(make_problem, make_settings, validation, checkpoint_seconds):
    problem = make_problem(train=14, validation=6 if validation else 0, dropout=0.3)
    return problem, make_settings(epochs=3, accumulation=1, checkpoint_seconds=checkpoint_seconds)


@pytest.fixture(scope="module")
def uninterrupted():
    return {}


@pytest.mark.parametrize("name", METHODS)
@given(
    validation=st.booleans(),
    often=st.booleans(),
    kills=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["loss", "after_backward", "after_clipping", "after_step"]), st.integers(1, 12)),
            st.tuples(st.just("scores"), st.integers(1, 4)),
            st.tuples(st.just("evaluate"), st.integers(1, 4)),
        ),
        min_size=1,
        max_size=2,
    ),
)
@example(validation=True, often=True, kills=[("evaluate", 1)])  # between an epoch's last step and its validation
@example(validation=True, often=True, kills=[("evaluate", 4)])  # in the final test
@example(validation=False, often=True, kills=[("after_backward", 8), ("after_step", 3)])  # in stage I, in stage II
@settings(max_examples=4, **SLOW)
def test_a_killed_run_goes_on_as_if_nothing_had_been(
    make_problem, make_settings, tmp_path_factory, uninterrupted, name, validation, often, kills
):
    """Killed once or twice: in any step's middle, in a validation, in the final test; with a checkpoint before every step, or
    only at the ends of epochs."""
    key = name, validation
    if key not in uninterrupted:
        problem, told = resumable(make_problem, make_settings, validation, 1e9)
        outcome = Loop(problem, METHODS[name](), told, tmp_path_factory.mktemp("whole")).run()
        uninterrupted[key] = outcome.results(problem), outcome.scores, weights(problem)
    folder = tmp_path_factory.mktemp("killed")
    for moment, at in kills:
        problem, told = resumable(make_problem, make_settings, validation, -1.0 if often else 1e9)
        method = METHODS[name]()
        owner = problem if moment in ("scores", "evaluate") else method
        setattr(owner, moment, dying(getattr(owner, moment), at))
        try:
            Loop(problem, method, told, folder).run()
        except Killed:
            pass
    problem, told = resumable(make_problem, make_settings, validation, 1e9)
    outcome = Loop(problem, METHODS[name](), told, folder).run()
    results, scores, final = uninterrupted[key]
    assert outcome.results(problem) == results
    np.testing.assert_array_equal(outcome.scores, scores)
    assert same(weights(problem), final)


@pytest.mark.parametrize("kill", [1, 4, 5, 6])
def test_a_run_of_so_many_steps_goes_on_too(make_problem, make_settings, tmp_path, kill):
    """Six steps, four to an epoch: killed in the first epoch, at its ends, and in the half one; two warm-up steps."""

    def run(checkpoint_seconds, dies=None):
        problem, told = resumable(make_problem, make_settings, False, checkpoint_seconds)
        method = Method()
        if dies:
            method.after_step = dying(method.after_step, dies)
        return Loop(problem, method, replace(told, steps=6, warmup_steps=2), tmp_path)

    whole = run(1e9)
    losses = whole.run().losses
    with pytest.raises(Killed):
        run(-1.0, kill).run()
    resumed = run(1e9)
    assert resumed.state["step"] == kill - 1
    assert resumed.run().losses == losses and len(losses) == 6
    assert same(weights(resumed.problem), weights(whole.problem))


def test_a_resumed_run_does_not_start_over(make_problem, make_settings, tmp_path):
    """Only what came after the last checkpoint is done again."""
    for kill in (9, 12):
        problem, told = resumable(make_problem, make_settings, False, -1.0)
        method = Method()
        method.after_step = dying(method.after_step, kill)
        with pytest.raises(Killed):
            Loop(problem, method, told, tmp_path).run()
        problem, told = resumable(make_problem, make_settings, False, 1e9)
        loop = Loop(problem, Method(), told, tmp_path)
        assert loop.resumed and loop.state["step"] == kill - 1
        (tmp_path / "checkpoint.safetensors").unlink()


def test_without_a_folder_nothing_is_written(make_problem, make_settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Loop(make_problem(), Method(), make_settings(checkpoint_seconds=-1.0)).run()
    assert not list(tmp_path.iterdir())


# --- selection


class Judged:
    """A problem whose validation metrics are given; notes whom it judged, and the weights of every epoch's end."""

    def __init__(self, problem, metrics):
        self.problem, self.metrics, self.order, self.weights = problem, metrics, [], []
        self.evaluate, problem.evaluate = problem.evaluate, self.judge

    def judge(self, rows, scores):
        if rows is self.problem.test:
            self.order.append("test")
            return self.evaluate(rows, scores)
        self.order.append("validation")
        self.weights.append(weights(self.problem))
        return {"accuracy": self.metrics[len(self.weights) - 1]}


@given(metrics=st.lists(st.sampled_from([0.0, 0.25, 0.5]), min_size=1, max_size=4))
@settings(max_examples=8, **SLOW)
def test_the_best_epoch_on_validation_is_tested_once(make_problem, make_settings, tmp_path_factory, metrics):
    """Ties go to the later epoch; the test rows are met once, at the end, by the selected weights."""
    problem = make_problem(train=4, validation=2, test=2)
    judged = Judged(problem, metrics)
    folder = tmp_path_factory.mktemp("run")
    outcome = Loop(problem, Method(), make_settings(epochs=len(metrics)), folder).run()
    best = max(metrics)
    expected = max(epoch for epoch, metric in enumerate(metrics, start=1) if metric == best)
    assert outcome.selected_step == expected * (len(outcome.losses) // len(metrics))
    assert outcome.validation == [{"accuracy": metric} for metric in metrics]
    assert judged.order == ["validation"] * len(metrics) + ["test"]
    assert same(weights(problem), judged.weights[expected - 1])


def test_nothing_is_selected_without_validation(make_problem, make_settings):
    problem = make_problem()
    judged = Judged(problem, [])
    outcome = Loop(problem, Method(), make_settings(epochs=3)).run()
    assert outcome.selected_step == len(outcome.losses) and outcome.validation == [] and judged.order == ["test"]


@pytest.mark.parametrize(
    "interval, steps, expected", [(2, 6, [2, 4, 6]), (2, 5, [2, 4, 5]), (4, 6, [4, 6]), (9, 4, [4])]
)
def test_validations_come_every_interval_and_at_the_end(
    make_problem, make_settings, tmp_path, interval, steps, expected
):
    problem = make_problem(validation=2)
    judged = Judged(problem, [0.0] * len(expected))
    loop = Loop(problem, Method(), make_settings(steps=steps, interval=interval), tmp_path)
    met = []
    step, evaluate = loop.step, problem.evaluate
    loop.step = lambda rows: (step(rows), met.append([]))[0]
    problem.evaluate = lambda rows, scores: (met[-1].append(rows), evaluate(rows, scores))[1]
    outcome = loop.run()
    assert [number for number, rows in enumerate(met, start=1) if problem.validation in rows] == expected
    assert outcome.selected_step == steps and judged.order == ["validation"] * len(expected) + ["test"]


@pytest.mark.parametrize("interval", [0, 2])
def test_a_killed_run_selects_what_a_whole_one_does(make_problem, make_settings, tmp_path, interval):
    told = make_settings(epochs=3, interval=interval, checkpoint_seconds=-1.0)
    whole = Loop(make_problem(validation=4), Method(), told, tmp_path / "whole").run()
    for stop in range(1, len(whole.losses)):
        folder = tmp_path / str(stop)
        killed = Loop(make_problem(validation=4), Method(), told, folder)
        step = killed.step

        def until(rows, step=step, killed=killed, stop=stop):
            if killed.state["step"] == stop:
                raise KeyboardInterrupt
            step(rows)

        killed.step = until
        with pytest.raises(KeyboardInterrupt):
            killed.run()
        resumed = Loop(make_problem(validation=4), Method(), told, folder)
        assert resumed.resumed
        found = resumed.run()
        assert (found.validation, found.selected_step, found.test) == (
            whole.validation,
            whole.selected_step,
            whole.test,
        )


# --- moments


class Recording(Method):
    """Writes down every moment."""

    def __init__(self):
        self.moments = []

    def __getattribute__(self, name):
        if name in vars(Method) and not name.startswith("_"):
            self.moments.append(name)
        return super().__getattribute__(name)


def test_moments_come_complete_and_in_order(make_problem, make_settings, tmp_path):
    told = make_settings(epochs=1, accumulation=2)
    method = Recording()
    Loop(make_problem(), method, told, tmp_path).run()
    forward, update = ["forward_weights", "loss"], ["after_backward", "extra", "after_clipping", "after_step"]
    assert method.moments == ["attach", "prepare", *2 * forward, *update, *forward, *update]


def test_a_resumed_run_is_not_prepared_again(make_problem, make_settings, tmp_path):
    problem, told = resumable(make_problem, make_settings, True, -1.0)
    Loop(problem, Method(), told, tmp_path).run()
    method = Recording()
    Loop(make_problem(train=14, validation=6), method, told, tmp_path).run()
    assert method.moments[:2] == ["attach", "load_state_dict"] and "prepare" not in method.moments


class Watching(Method):
    """Checks, at its moment, what the contract promises of gradients and weights."""

    def attach(self, model, total_steps):
        self.model, self.total_steps, self.steps = model, total_steps, []

    def forward_weights(self, step):
        assert step == len(self.steps) + 1
        return super().forward_weights(step)

    def after_backward(self, step):
        self.unclipped, self.before = self.norm(), weights(self)
        assert self.unclipped > 0.01

    def after_clipping(self, step, optimizer):
        assert self.norm() == pytest.approx(0.01, rel=1e-3)
        assert same(self.before, weights(self))

    def after_step(self, step, optimizer):
        # At the first step the rate is still zero: warm-up.
        assert same(self.before, weights(self)) == (step == 1)
        self.steps.append(step)

    def norm(self):
        return math.sqrt(sum(p.grad.double().square().sum().item() for p in self.model.parameters()))


def test_gradients_are_unclipped_then_clipped_then_used(make_problem, make_settings):
    method = Watching()
    Loop(make_problem(), method, make_settings(clip_norm=0.01, warmup_ratio=0.3)).run()
    assert method.steps == [1, 2, 3, 4, 5, 6] and method.total_steps == 6


def test_dps_accumulates_before_clipping_and_clips_after_masking(make_problem, make_settings):
    class Witness(DPSDense):
        def after_backward(self, step):
            self.raw = {name: weight.grad.clone() for name, weight in self.weights.items()}
            return super().after_backward(step)

        def after_clipping(self, step, optimizer):
            grads = [p.grad.double().square().sum() for group in optimizer.param_groups for p in group["params"]]
            assert math.sqrt(sum(grads)) == pytest.approx(1e-3, rel=1e-3)
            for name, gradient in self.raw.items():
                if step == 1:
                    torch.testing.assert_close(self.gam[name], gradient**2)
                else:
                    left = gradient * self.mask[name]
                    assert not self.weights[name].grad[~self.mask[name]].any()
                    cosine = functional.cosine_similarity(self.weights[name].grad.view(1, -1), left.view(1, -1), eps=0)
                    torch.testing.assert_close(cosine, torch.ones(1))

    method = Witness(0.5, 0.5, "grad_zero")
    Loop(make_problem(train=8, dropout=0.0), method, make_settings(epochs=1, clip_norm=1e-3)).run()
    assert 0 < sum(int(mask.sum()) for mask in method.mask.values())


# --- losses that are not finite


class Failing(Method):
    """Loses its mind at given steps."""

    def __init__(self, steps, value, inner=None):
        self.steps, self.value, self.now, self.inner, self.kept = steps, value, 0, inner or Method(), {}

    def attach(self, model, total_steps):
        self.model = model
        self.inner.attach(model, total_steps)

    def forward_weights(self, step):
        self.now = step
        self.kept[step] = weights(self)
        return super().forward_weights(step)

    def loss(self, problem, batch):
        return super().loss(problem, batch) * (self.value if self.now in self.steps else 1)

    def after_backward(self, step):
        assert step not in self.steps
        self.inner.after_backward(step)

    def extra(self, step):
        return self.inner.extra(step)

    def after_clipping(self, step, optimizer):
        self.inner.after_clipping(step, optimizer)

    def after_step(self, step, optimizer):
        self.inner.after_step(step, optimizer)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_skips_the_step_and_is_counted(make_problem, make_settings, value):
    problem, method = make_problem(), Failing({2, 4}, value)
    loop = Loop(problem, method, make_settings())
    outcome = loop.run()
    assert outcome.skipped_steps == 2
    assert [math.isfinite(loss) for loss in outcome.losses] == [True, False, True, False, True, True]
    assert same(method.kept[2], method.kept[3]) and not same(method.kept[3], method.kept[5])
    # Moments and their step counters stood still too; the schedule went on to its end.
    assert {int(state["step"]) for state in loop.optimizer.state.values()} == {4}
    assert loop.schedule.get_last_lr()[0] == 0
    assert np.isfinite(outcome.scores).all()


class Spoiling(DPSDense):
    """One gradient entry of step 2 overflows."""

    def attach(self, model, total_steps):
        super().attach(model, total_steps)
        model.classifier.weight.register_hook(self._spoiled)

    def forward_weights(self, step):
        self.step = step
        return super().forward_weights(step)

    def _spoiled(self, gradient):
        return torch.full_like(gradient, math.inf) if self.step == 2 else gradient

    def after_backward(self, step):
        assert step != 2, "no method sees such a gradient"
        return super().after_backward(step)


def test_a_gradient_that_is_not_finite_skips_the_step_and_a_record_can_hold_what_came_out(make_problem, make_settings):
    problem = make_problem()
    outcome = Loop(problem, Spoiling(0.5, 0.5, "grad_zero"), make_settings()).run()
    assert outcome.skipped_steps == 1
    assert np.isfinite(outcome.scores).all()
    lossless = Loop(make_problem(), Failing({2}, math.nan), make_settings()).run().results(problem)
    assert lossless["losses"][1] is None and json.dumps(lossless, allow_nan=False)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("policy", ["grad_zero", "freeze"])
@pytest.mark.parametrize("lost", [{1}, {2}, {3}, {5}, {1, 2}, {3, 4}, {3, 4, 5}, {1, 2, 3, 4, 5}])
def test_dps_goes_on_after_lost_steps(make_problem, make_settings, policy, lost):
    """Whole stages among them; two steps a stage."""
    method = Failing(lost, math.nan, DPSDense(0.5, 0.25, policy))
    outcome = Loop(make_problem(train=16), method, make_settings()).run()
    assert outcome.skipped_steps == len(lost)
    assert np.isfinite(outcome.scores).all()


# --- every kind of task, end to end


@pytest.mark.parametrize("backbone", ["tiny-bert", "tiny-t5"])
@pytest.mark.parametrize("task", ["cola", "mnli", "stsb", "copa", "multirc", "record"])
def test_every_kind_of_task_trains_selects_and_is_tested(make_problem, make_settings, tmp_path, task, backbone):
    problem = make_problem(task, backbone, train=8, validation=4, test=4, dropout=0.0)
    told = make_settings(epochs=4, batch_size=8, learning_rate=5e-3, warmup_ratio=0.0)
    outcome = Loop(problem, Method(), told, tmp_path).run()
    results = outcome.results(problem)
    metrics = tasks.get(task).metrics
    assert tuple(results["test"]) == metrics
    assert [tuple(found) for found in results["validation"]] == [metrics] * 4
    assert results["losses"][-1] < results["losses"][0]
    assert results["train_rows"] == len(problem.train) and results["test_rows"] == len(problem.test)
    one_of_a_class = backbone == "tiny-bert" and task not in ("stsb", "record")
    assert (results["correct"] is not None) == one_of_a_class
    assert json.loads(json.dumps(results)) == results


def test_tokens_are_counted_without_padding(make_problem, make_settings):
    problem = make_problem()
    outcome = Loop(problem, Method(), make_settings(epochs=3)).run()
    assert outcome.tokens == 3 * sum(map(len, problem.train.input_ids))


# --- what a record keeps


def outcome_of(scores):
    return Outcome([0.5], [], 1, 0, 10, {"accuracy": 0.5}, np.asarray(scores))


def test_a_run_that_says_one_thing_only_is_degenerate(make_problem):
    problem = make_problem(test=4)
    one_sided, varied = [[1.0, 0], [2, 1], [3, 2], [1, -1]], [[1.0, 0], [0, 1], [3, 2], [1, -1]]
    assert outcome_of(one_sided).results(problem)["degenerate"]
    assert not outcome_of(varied).results(problem)["degenerate"]


def test_correct_is_per_row_in_the_splits_order(make_problem):
    problem = make_problem(test=4)
    right = copy.deepcopy(problem.test.gold)
    right[2] = 1 - right[2]
    results = outcome_of(np.eye(2)[right]).results(problem)
    assert results["correct"] == [1, 1, 0, 1]


def test_scores_of_no_class_are_neither_right_nor_degenerate(make_problem):
    results = outcome_of([[3.0]] * 4).results(make_problem("stsb", test=4))
    assert results["correct"] is None and results["degenerate"] is False


def test_a_warm_up_longer_than_the_training_is_refused(make_settings):
    with pytest.raises(InputError, match="warmup_steps 6 of 6 steps leave none at the full rate"):
        make_settings(warmup_steps=6).warmup(10)
