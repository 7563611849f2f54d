"""The multi-task engine (LeTS-R): the answers of the sub-tasks run one by one, from one frozen pass, with nothing computed twice."""

import copy
from functools import cache, partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel

from paperlib import backbones
from paperlib.errors import InputError
from paperlib.kernels import triton_path
from paperlib.lets import operations, projections, workload
from paperlib.lets.architecture import Architecture, Own, Task
from paperlib.lets.engine import WEIGHTS, Engine
from paperlib.lets.frozen_pass import FrozenEncoder
from paperlib.lets.offsets import Offset
from paperlib.lets.operations import Encoder
from paperlib.lets.own_layers import CompactOffset, OwnAttention, OwnLinear
from paperlib.lets.projections import DENSEST
from paperlib.lets.readout import ReadoutSizes
from paperlib.measure import Allocations
from paperlib.training.launches import counted

L, D, OUTPUTS = 3, 32, 2
SIZES = ReadoutSizes(aggregation=5, lstm=4)
CLOSE = {"rtol": 0, "atol": 1e-12}
FAMILIES = ["tiny-bert", "tiny-roberta", "tiny-electra"]
unhurried = settings(deadline=None, max_examples=12)
owns = st.builds(Own, st.booleans(), st.booleans(), st.booleans())
architectures = st.lists(owns, min_size=L, max_size=L).map(lambda rows: Architecture(tuple(rows)))
DECOUPLED = Architecture((Own(False, True, True),) * L)


@cache
def _body(name, attention):
    config = backbones.configuration(name)
    config.num_hidden_layers, config.vocab_size, config.pad_token_id = L, 50, 0
    torch.manual_seed(0)
    return AutoModel.from_config(config, attn_implementation=attention).double()


def encoder(name="tiny-bert", attention="eager"):
    return FrozenEncoder(copy.deepcopy(_body(name, attention)))


@torch.no_grad()
def task_of(frozen, architecture, seed=0, kept=0.01):
    """A sub-task whose biases, norms and kept share of the offsets are away from their start."""
    torch.manual_seed(seed)
    task = Task(frozen, architecture, OUTPUTS, SIZES).eval()
    for parameter in task.parameters():
        parameter += 0.2 * torch.randn_like(parameter)
    for module in task.modules():
        if isinstance(module, OwnLinear):
            module.offset.weight *= torch.rand_like(module.offset.weight) < kept
    return task


def inputs(rows=3, length=6, seed=0):
    ids = torch.randint(5, 50, (rows, length), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


def one_by_one(frozen, tasks, given):
    with torch.no_grad():
        return {name: task(frozen(**given)) for name, task in tasks.items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, scores in expected.items():
        torch.testing.assert_close(found[name], scores, **CLOSE)


# --- the answers


@unhurried
@given(
    st.lists(architectures, min_size=1, max_size=4),
    st.sampled_from([0.0, 0.01, 0.5, 1.0]),
    st.sampled_from(WEIGHTS),
    st.booleans(),
    st.booleans(),
)
def test_every_task_answers_as_it_does_alone(chosen, kept, weights, only_read, together):
    frozen = encoder()
    tasks = {f"task {i}": task_of(frozen, each, i, kept) for i, each in enumerate(chosen)}
    engine, expected = Engine(frozen, tasks, weights, only_read, together), one_by_one(frozen, tasks, inputs())
    assert_same(engine(**inputs()), expected)
    scores = {}
    assert len(list(engine.layer_by_layer(scores, **inputs()))) == len(set(engine.layer_by_layer({}, **inputs())))
    assert_same(scores, expected)
    assert_same(dict(engine.in_order(**inputs())), expected)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_any_backbone_and_attention_serves(name, attention):
    frozen = encoder(name, attention)
    tasks = {
        "decoupled": task_of(frozen, DECOUPLED, 1),
        "upper": task_of(frozen, Architecture.freeze_bottom(L, 1), 2),
        "linear": task_of(frozen, Architecture.all_share(L), 3),
    }
    expected = one_by_one(frozen, tasks, inputs())
    for only_read in (False, True):
        assert_same(Engine(frozen, tasks, only_read=only_read)(**inputs()), expected)
    assert not torch.allclose(expected["decoupled"], expected["linear"], atol=1e-2), "nothing is tested"


def test_nine_tasks_and_an_input_without_padding():
    frozen = encoder()
    tasks = {str(i): task_of(frozen, [DECOUPLED, Architecture.freeze_bottom(L, i % 4)][i % 2], i) for i in range(9)}
    given = {"input_ids": inputs()["input_ids"].clamp(min=5)}
    assert_same(Engine(frozen, tasks, "patched")(**given), one_by_one(frozen, tasks, given))


@pytest.mark.parametrize("together", [False, True])
def test_in_single_precision_and_half(together):
    frozen, tolerance = encoder(), {torch.float32: 1e-5, torch.bfloat16: 0.05}
    task = task_of(frozen, Architecture((Own(False, True, True), Own(False, True, False), Own(True, True, True))))
    frozen.float(), task.float()
    expected = one_by_one(frozen, {"a": task}, inputs())["a"]
    for dtype, close in tolerance.items():
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            found = Engine(frozen, {"a": task, "b": task}, together=together)(**inputs())["a"]
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=close)
    frozen.bfloat16(), task.bfloat16()
    found = Engine(frozen, {"a": task, "b": task}, together=together)(**inputs())["a"]
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("together", [False, True])
def test_compact_offsets_answer_as_dense_ones_do(weights, together):
    frozen = encoder()
    task = task_of(frozen, Architecture((Own(False, True, True), Own(True, True, False), Own(False, True, True))))
    expected = one_by_one(frozen, {"a": task}, inputs())
    dense = Engine(frozen, {"a": task}, weights, together=together)
    for own in task.modules():
        if isinstance(own, OwnLinear):
            own.offset = CompactOffset(Offset.of(own.offset.weight, own.offset.weight != 0))
    compact = Engine(frozen, {"a": task}, weights, together=together)
    assert_same(compact(**inputs()), expected)
    assert compact.nbytes == dense.nbytes and compact.kept == dense.kept


@pytest.mark.parametrize("together", [False, True])
def test_autocast_leaves_sparse_products_in_single_precision(together):
    """Rows of 1 and 2^-12, whose sum is no half."""
    frozen = encoder().float()
    attention, cached = frozen.layers[0].attention, frozen(**inputs()).layers[0]
    own = OwnAttention(frozen.layers[0], frozen.config)
    with torch.no_grad():
        own.query.offset.weight[0, :2] = torch.tensor([1.0, 2**-12])
    cached.input.fill_(1.0)
    _, products = projections.on_shared_input(own, attention.self, True, together)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        query, *_ = products(cached, cached.input[None], cached.input[None])
        assert (query[0, ..., 0] - cached.query[..., 0] == 1 + 2**-12).all()


def test_it_is_a_snapshot_without_gradients_or_dropout():
    frozen = encoder()
    task = task_of(frozen, DECOUPLED).train()
    engine = Engine(frozen, {"a": task})
    before = engine(**inputs())["a"]
    assert not before.requires_grad
    with torch.no_grad():
        for parameter in task.parameters():
            parameter += 1.0
    assert torch.equal(engine(**inputs())["a"], before)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_frozen_encoder_is_left_as_it_was(weights):
    frozen = encoder()
    before = copy.deepcopy(frozen.state_dict())
    Engine(frozen, {"a": task_of(frozen, Architecture.all_own(L))}, weights)(**inputs())
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())


def test_some_of_the_tasks_answer_as_all_do_and_share_their_weights():
    frozen = encoder()
    tasks = {"a": task_of(frozen, DECOUPLED), "b": task_of(frozen, Architecture.freeze_bottom(L, 2), 1)}
    engine = Engine(frozen, tasks)
    part, everything = engine.only(["b"]), engine(**inputs())
    assert part(**inputs()).keys() == {"b"} and torch.equal(part(**inputs())["b"], everything["b"])
    assert part.tasks["b"] is engine.tasks["b"]
    calls = linears(frozen)
    part(**inputs())
    assert len(calls) == 6 * 2, "nothing that the other alone asks for"


# --- together


ATTENTION = Architecture((Own(False, True, False),) * L)


def several(frozen, kinds=(DECOUPLED, ATTENTION, DECOUPLED, DECOUPLED)):
    return {str(i): task_of(frozen, kind, i) for i, kind in enumerate(kinds)}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_sub_tasks_that_run_together_take_the_launches_of_one(attention):
    """Each has a readout of its own, which starts with stacking what it reads."""
    frozen, pooled = encoder(attention=attention), torch.zeros(L, 3, D, dtype=torch.float64)
    counts = []
    for number in (2, 5):
        engine = Engine(frozen, several(frozen, [ATTENTION] * number), together=True)
        readouts = [task.readout for task in engine.tasks.values()]
        alone = sum(1 + counted(partial(readout, pooled)).total for readout in readouts)
        counts.append(counted(partial(engine, **inputs())).total - alone)
    assert counts[0] == counts[1]


def test_sub_tasks_that_follow_one_another_share_the_memory_they_run_together_in():
    frozen = encoder()
    engine = Engine(frozen, several(frozen), together=True)
    places = {each.untyped_storage().data_ptr() for each in held(engine)}
    for names, shared in ((["1", "2"], True), (["2"], True), (["0", "2"], False)):
        part = engine.only(names)
        assert ({each.untyped_storage().data_ptr() for each in held(part)} <= places) == shared
        assert_same(part(**inputs()), {name: engine(**inputs())[name] for name in names})
    assert sum(engine.nbytes.values()) == sum(Engine(frozen, several(frozen), together=True).nbytes.values())


def held(engine):
    """Values, places and dense weights of what runs together, and of the sub-tasks' own parts of it."""
    groups = [group.attention for layer in engine._together for group in layer]
    alone = [layer.attention for task in engine.tasks.values() for layer in task.layers]
    for attention in groups + alone:
        yield from attention.output.tensors
        for block in attention.products.blocks:
            yield from (block.values, block.places, block.biases)


def test_the_kernel_serves_as_plain_pytorch_does(monkeypatch):
    pytest.importorskip("triton", reason="Triton is not installed")
    frozen = encoder().float()
    tasks = {name: task.float() for name, task in several(frozen).items()}
    expected = one_by_one(frozen, tasks, inputs())
    monkeypatch.setattr(triton_path, "taken_by", lambda tensor: True)
    for only_read in (False, True):
        engine = Engine(frozen, tasks, only_read=only_read)
        assert all(engine._together), "where the kernel runs sub-tasks run together"
        for name, scores in engine(**inputs()).items():
            torch.testing.assert_close(scores, expected[name], rtol=0, atol=1e-5)


# --- the order


def test_tasks_in_order_run_only_when_they_are_asked_for():
    frozen = encoder()
    tasks = {"first": task_of(frozen, DECOUPLED), "second": task_of(frozen, Architecture.all_own(L), 1)}
    engine = Engine(frozen, tasks)
    answers, ran = engine.in_order(**inputs()), []
    engine.tasks["second"].readout.register_forward_hook(lambda *_: ran.append("second"))
    name, _ = next(answers)
    assert (name, ran) == ("first", [])
    assert [name for name, _ in answers] == ["second"] == ran


@unhurried
@given(st.lists(architectures, min_size=1, max_size=3))
def test_its_nodes_are_those_of_the_workload(chosen):
    frozen = encoder()
    tasks = {f"task {i}": task_of(frozen, each, i) for i, each in enumerate(chosen)}
    nodes = list(Engine(frozen, tasks).layer_by_layer({}, **inputs()))
    named = {name: task.architecture for name, task in tasks.items()}
    work = workload.sharing(Encoder.of(frozen.config), 6, named, workload.in_order([*tasks]), 0.0)
    assert sorted(map(str, nodes)) == sorted(map(str, work.operations)) and len(set(nodes)) == len(nodes)
    inside = [node for node in nodes if node[0] == workload.FROZEN]
    assert all(work.waits_for[later] == {earlier} for earlier, later in zip(inside, inside[1:], strict=False))


# --- what it costs


def flops(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@unhurried
@given(st.lists(architectures, min_size=1, max_size=3), st.booleans(), st.booleans())
def test_torch_counts_the_operations_predicted(chosen, only_read, together):
    """In float64, where the LSTM is not fused. Sparse products it counts as dense: no offset is kept here."""
    frozen, length = encoder(), 6
    tasks = {f"task {i}": task_of(frozen, each, i, kept=0.0) for i, each in enumerate(chosen)}
    named = {name: task.architecture for name, task in tasks.items()}
    work = workload.sharing(
        Encoder.of(frozen.config),
        length,
        named,
        workload.in_order([*tasks]),
        kept=0.0,
        readout=sum(operations.readout(L, D, SIZES, OUTPUTS).values()),
        only_read=only_read,
    )
    engine = Engine(frozen, tasks, only_read=only_read, together=together)
    ids = torch.randint(5, 50, (1, length))
    assert flops(lambda: engine(input_ids=ids)) == 2 * (work.overhead + sum(work.new_operations.values()))


def test_the_whole_of_a_fine_tuned_model_is_counted():
    frozen = encoder()
    engine = Engine(frozen, {"a": task_of(frozen, Architecture.all_own(L))})
    readout = sum(operations.readout(L, D, SIZES, OUTPUTS).values())
    expected = operations.total(Encoder.of(frozen.config), 6) + readout
    assert flops(lambda: engine(input_ids=torch.randint(5, 50, (4, 6)))) == 2 * 4 * expected


def linears(frozen):
    calls = []
    for module in frozen.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("number", [1, 5])
def test_the_frozen_model_runs_once_whatever_the_number_of_tasks(number):
    frozen = encoder()
    engine = Engine(frozen, {str(i): task_of(frozen, DECOUPLED, i) for i in range(number)})
    calls = linears(frozen)
    engine(**inputs())
    assert len(calls) == 6 * (L - 1) + 3, "all of the lower layers, q, k and v of the last"


def test_nothing_frozen_runs_above_what_is_shared():
    frozen = encoder()
    calls = linears(frozen)
    Engine(frozen, {"a": task_of(frozen, Architecture.freeze_bottom(L, 1))})(**inputs())
    assert len(calls) == 6
    calls.clear()
    Engine(frozen, {"a": task_of(frozen, Architecture.all_own(L))})(**inputs())
    assert calls == []


def test_layer_by_layer_holds_less_than_one_after_the_other():
    frozen = encoder()
    engine = Engine(frozen, {"a": task_of(frozen, DECOUPLED)})
    given = inputs(rows=8, length=32)
    engine(**given)
    with Allocations() as allocations:
        engine(**given)
        allocations.mark("layer by layer")
        list(engine.in_order(**given))
        allocations.mark("in order")
    assert allocations.peak["layer by layer"] < 0.8 * allocations.peak["in order"]


def test_a_patched_task_takes_eight_bytes_a_kept_offset():
    frozen = encoder().float()
    task = task_of(frozen, Architecture.all_own(L), kept=0.02).float()
    kept = sum(m.offset.weight.count_nonzero().item() for m in task.modules() if isinstance(m, OwnLinear))
    rest = sum(parts for name, parts in task.sizes().items() if name != "offsets")
    assert Engine(frozen, {"a": task}, "patched").nbytes == {"a": 8 * kept + 4 * rest}
    assert Engine(frozen, {"a": task}, "merged").nbytes == {"a": 4 * sum(task.sizes().values())}


@pytest.mark.parametrize("together", [False, True])
def test_a_shared_input_takes_eight_bytes_a_kept_offset_and_one_place_a_row(together):
    frozen = encoder().float()
    task = task_of(frozen, Architecture((Own(False, True, False),) * L), kept=0.01).float()
    (found,) = Engine(frozen, {"a": task}, "patched", together=together).nbytes.values()
    kept = sum(m.offset.weight.count_nonzero().item() for m in task.modules() if isinstance(m, OwnLinear))
    rest = sum(parts for name, parts in task.sizes().items() if name != "offsets")
    assert found <= 8 * kept + 4 * rest + 3 * L * 4 * (D + 1)


def test_the_kept_share_is_that_of_q_k_and_v():
    frozen = encoder()
    task = task_of(frozen, DECOUPLED, kept=0.01)
    attention = task.layers[1].attention
    entries = [getattr(attention, name).offset.weight.count_nonzero().item() for name in ("query", "key", "value")]
    kept = Engine(frozen, {"a": task}).kept["a"]
    assert kept[1] == pytest.approx(sum(entries) / (3 * D * D)) and 0 < kept[1] < DENSEST
    dense = Engine(frozen, {"a": task_of(frozen, DECOUPLED, kept=0.5)})
    assert dense.kept["a"] == [1.0] * L, "computed densely, and counted so"


# --- bad input


@pytest.mark.parametrize("names", [[], ["frozen"]])
def test_tasks_are_needed_and_none_takes_the_frozen_parts_name(names):
    frozen = encoder()
    with pytest.raises(InputError, match="engine: give at least one sub-task"):
        Engine(frozen, {name: task_of(frozen, DECOUPLED) for name in names})


def test_unknown_forms_are_refused():
    frozen = encoder()
    with pytest.raises(InputError, match="engine: unknown weights 'dense'; known: merged, patched"):
        Engine(frozen, {"a": task_of(frozen, DECOUPLED)}, "dense")


def test_a_task_of_another_depth_is_refused():
    frozen = encoder()
    task = task_of(frozen, DECOUPLED)
    frozen.config = backbones.configuration("tiny-bert")
    with pytest.raises(InputError, match="an architecture for 3 layers; the encoder has 2"):
        Engine(frozen, {"a": task})
