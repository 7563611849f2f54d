"""The supernet: what gates do to real models, what it trains, and the published remarks on biases that do nothing or the same."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from paperlib.errors import InputError
from paperlib.s3delta.positions import baseline, candidates
from paperlib.s3delta.supernet import Supernet, head

FAMILIES = ["tiny-t5", "tiny-bert", "tiny-roberta", "tiny-electra", "tiny-deberta", "tiny-bart"]


@pytest.fixture
def make_supernet(small_model, shaken):
    """``make_supernet(name, space)``: a supernet whose deltas all do something; only the rows given, if any."""

    def make(name, space="M", rows=None, **options):
        model = small_model(name, **options)
        torch.manual_seed(0)
        found = [position for position in candidates(model, space) if rows is None or position.row in rows]
        supernet = Supernet(model, found)
        shaken(supernet.deltas)
        return supernet

    return make


def gates(supernet, value=None, **options):
    if value is not None:
        return torch.full((len(supernet.sizes),), value, dtype=torch.float64, **options)
    generator = torch.Generator().manual_seed(2)
    return torch.rand(len(supernet.sizes), dtype=torch.float64, generator=generator).requires_grad_()


# --- gates


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FAMILIES)
def test_with_all_gates_0_the_model_is_what_it_was_bit_for_bit(small_model, make_supernet, outputs, name, dtype):
    plain = outputs(small_model(name, dtype=dtype))
    supernet = make_supernet(name, dtype=dtype)
    assert not torch.equal(plain, outputs(supernet.model)), "the deltas do nothing: nothing is tested"
    with supernet.gated(gates(supernet, 0.0)):
        assert torch.equal(plain, outputs(supernet.model))


@pytest.mark.parametrize("name", ["tiny-t5", "tiny-bert"])
def test_with_all_gates_0_autocast_changes_nothing_either(small_model, make_supernet, outputs, name):
    plain, supernet = small_model(name, dtype=torch.float32), make_supernet(name, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16), supernet.gated(gates(supernet, 0.0)):
        assert torch.equal(outputs(plain), outputs(supernet.model))


@pytest.mark.parametrize("name", ["tiny-t5", "tiny-bert"])
def test_autocast_is_close_to_full_precision(make_supernet, outputs, name):
    supernet = make_supernet(name, dtype=torch.float32)
    z = gates(supernet, 0.02)
    with supernet.gated(z), torch.no_grad():
        full = outputs(supernet.model)
        with torch.autocast("cpu", torch.bfloat16):
            half = outputs(supernet.model)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), full, rtol=0.1, atol=0.1 * full.abs().max().item())


@pytest.mark.parametrize("name", FAMILIES)
def test_every_gate_has_the_derivative_of_its_difference_quotient(exact_norms, make_supernet, outputs, name):
    """At 0 too, where the model does not see the delta yet."""
    supernet = make_supernet(name)

    def value(z):
        with supernet.gated(z):
            return outputs(supernet.model).log_softmax(-1)[..., 0].square().sum()

    z = gates(supernet)
    with torch.no_grad():
        z[::3] = 0.0
        z *= 0.1
    (found,) = torch.autograd.grad(value(z), z)
    step, errors = 1e-6, []
    with torch.no_grad():
        for i in range(0, len(z), 5):
            ahead, behind = z.clone(), z.clone()
            ahead[i] += step
            behind[i] -= step
            quotient = ((value(ahead) - value(behind)) / (2 * step)).item()
            errors.append(abs(found[i].item() - quotient) / (1 + abs(quotient)))
    assert max(errors) < 1e-6


@pytest.mark.parametrize("name", FAMILIES)
def test_a_closed_gate_still_has_a_gradient(make_supernet, outputs, name):
    """Of all types; but of a key bias, whose gradient is 0 whatever its gate (see below)."""
    supernet = make_supernet(name)
    z = gates(supernet, 0.0, requires_grad=True)
    with supernet.gated(z):
        loss = outputs(supernet.model).log_softmax(-1)[..., 0].square().sum()
    (found,) = torch.autograd.grad(loss, z)
    for position, gradient in zip(supernet.positions, found, strict=True):
        if position.row != "K BitFit":
            assert gradient.abs() > 1e-12, position.name


@pytest.mark.parametrize("name", ["tiny-t5", "tiny-bert"])
def test_gates_of_1_are_no_gates(make_supernet, outputs, name):
    supernet = make_supernet(name)
    free = outputs(supernet.model)
    with supernet.gated(gates(supernet, 1.0)):
        torch.testing.assert_close(outputs(supernet.model), free, rtol=1e-12, atol=1e-12)
    assert torch.equal(outputs(supernet.model), free), "the context has left something behind"


def test_forward_passes_in_one_context_see_the_parameters_as_they_are(make_supernet, outputs):
    """As the search moves them between its two finite differences; and each may be differentiated by itself."""
    supernet = make_supernet("tiny-bert")
    z = gates(supernet)
    with supernet.gated(z):
        before = outputs(supernet.model)
        before.sum().backward()
        with torch.no_grad():
            supernet.deltas[0].B += 1.0
        after = outputs(supernet.model)
        after.sum().backward()
    assert not torch.equal(before, after)


def test_a_supernet_moves_with_its_gates_to_another_precision(make_supernet, outputs):
    supernet = make_supernet("tiny-bert", dtype=torch.float32)
    z = gates(supernet)
    with supernet.gated(z):
        logits = outputs(supernet.model)
    logits.sum().backward()
    assert logits.dtype == torch.float32 and z.grad.dtype == torch.float64 and z.grad.isfinite().all()


def test_text_is_generated_under_gates(make_supernet):
    supernet = make_supernet("tiny-t5", dtype=torch.float32)
    ids = torch.randint(200, 3000, (2, 5), generator=torch.Generator().manual_seed(0))
    told = {"input_ids": ids, "max_new_tokens": 6, "do_sample": False, "num_beams": 1}
    free = supernet.model.generate(**told)
    with supernet.gated(gates(supernet, 0.0)):
        closed = supernet.model.generate(**told)
    supernet.remove()
    assert torch.equal(closed, supernet.model.generate(**told)) and not torch.equal(closed, free)


def test_the_wrong_number_of_gates_is_refused(make_supernet):
    with pytest.raises(ValueError, match="gates of shape"), make_supernet("tiny-bert").gated(torch.ones(3)):
        pass


def test_a_failed_forward_pass_leaves_nothing_behind(make_supernet, outputs):
    supernet = make_supernet("tiny-bert")
    expected = outputs(supernet.model)
    with pytest.raises(RuntimeError), supernet.gated(gates(supernet)):
        supernet.model.bert.encoder.layer[0].attention.output.LayerNorm(torch.zeros(2, 5, dtype=torch.float64))
    assert torch.equal(outputs(supernet.model), expected)


# --- composition


def test_parallel_deltas_come_first_and_sequential_ones_read_their_sum(small_model, shaken):
    """Worked out by hand at BERT's attention output, where LoRA, BitFit and the low-rank adapter meet: nothing is chained."""
    model = small_model("tiny-bert")
    path = "bert.encoder.layer.0.attention.output.dense"
    found = [position for position in candidates(model, "M") if position.path == path]
    assert [position.type for position in found] == ["lora", "bitfit", "lra"]
    host, x = model.get_submodule(path), torch.randn(2, 3, 32, dtype=torch.float64)
    frozen = host(x)
    supernet = Supernet(model, found)
    lora, bitfit, lra = shaken(supernet.deltas)
    z = gates(supernet).detach()
    parallel = frozen + z[0] * 16 * x @ (lora.B @ lora.A).T
    chained = parallel + z[1] * bitfit.b
    with supernet.gated(z):
        found = host(x)
    torch.testing.assert_close(found, chained + z[2] * lra(parallel), rtol=1e-12, atol=1e-12)
    assert (found - (chained + z[2] * lra(chained))).abs().max() > 1e-4


def test_an_attention_block_keeps_what_else_it_returns(make_supernet):
    """T5's returns position biases and weights beside the hidden states, which alone the adapter changes."""
    supernet = make_supernet("tiny-t5", rows={"SelfAttn LRA"})
    block = supernet.model.encoder.block[0].layer[0].SelfAttention
    x = torch.randn(2, 5, 32, dtype=torch.float64)
    changed, bias, *rest = block(x)
    with supernet.gated(gates(supernet, 0.0)):
        plain, plain_bias, *plain_rest = block(x)
    torch.testing.assert_close(changed, plain + supernet.deltas[0](plain), rtol=1e-12, atol=1e-12)
    assert torch.equal(bias, plain_bias) and len(rest) == len(plain_rest)


@pytest.mark.parametrize("name", ["tiny-t5", "tiny-bert"])
def test_a_supernet_computes_its_definition(exact_norms, make_supernet, small_model, outputs, name):
    """Against plain hooks that add z delta(H) with the deltas' own forward, host by host."""
    supernet = make_supernet(name)
    z = gates(supernet).detach() * 0.2
    with supernet.gated(z):
        found = outputs(supernet.model)
    model, by_path = small_model(name), {}
    for position, delta, gate in zip(supernet.positions, supernet.deltas, z, strict=True):
        by_path.setdefault(position.path, []).append((position.parallel, copy.deepcopy(delta), gate))

    def hook(deltas):
        def after(host, inputs, output):
            hidden = output[0] if isinstance(output, tuple) else output
            first = hidden + sum(gate * delta(inputs[0]) for parallel, delta, gate in deltas if parallel)
            last = first + sum(gate * delta(first) for parallel, delta, gate in deltas if not parallel)
            return (last, *output[1:]) if isinstance(output, tuple) else last

        return after

    for path, deltas in by_path.items():
        model.get_submodule(path).register_forward_hook(hook(deltas))
    torch.testing.assert_close(found, outputs(model), rtol=1e-11, atol=1e-11)


# --- what the published remarks say of biases and norms


@pytest.mark.parametrize("name", ["tiny-t5", "tiny-bert", "tiny-roberta", "tiny-bart"])
def test_a_key_bias_does_nothing(small_model, make_supernet, outputs, name):
    """It adds the same number to all scores of a query, which the softmax takes out again."""
    supernet = make_supernet(name, rows={"K BitFit"})
    torch.testing.assert_close(outputs(supernet.model), outputs(small_model(name)), rtol=1e-12, atol=1e-12)
    z = gates(supernet)
    with supernet.gated(z):
        (found,) = torch.autograd.grad(outputs(supernet.model).square().sum(), z)
    assert found.abs().max() < 1e-10


@pytest.mark.parametrize("name", ["tiny-t5", "tiny-bert", "tiny-roberta"])
def test_a_value_bias_is_an_output_bias(make_supernet, outputs, name):
    """b_O = W_o b_V, for attention weights sum to 1 (without dropout)."""
    by_value, by_output = (make_supernet(name, rows={f"{role} BitFit"}) for role in "VO")
    assert len(by_value.positions) == len(by_output.positions)
    with torch.no_grad():
        for place, value, output in zip(by_output.positions, by_value.deltas, by_output.deltas, strict=True):
            output.b.copy_(by_output.model.get_submodule(place.path).weight @ value.b)
    torch.testing.assert_close(outputs(by_value.model), outputs(by_output.model), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_lnfit_shifts_the_scales_of_norms(small_model, make_supernet, outputs, name):
    supernet = make_supernet(
        name, rows={f"{role} LNFiT" for role in ("SelfAttn.LN", "CrossAttn.LN", "FFN.LN", "Final_LN")}
    )
    z = gates(supernet).detach()
    with supernet.gated(z):
        found = outputs(supernet.model)
    model = small_model(name)
    with torch.no_grad():
        for position, delta, gate in zip(supernet.positions, supernet.deltas, z, strict=True):
            model.get_submodule(position.path).weight += gate * delta.s
    torch.testing.assert_close(found, outputs(model), rtol=1e-12, atol=1e-12)


# --- what is trained


@pytest.mark.parametrize("name", FAMILIES)
def test_only_deltas_and_the_head_are_trained(small_model, name):
    model = small_model(name)
    before = {parameter: label for label, parameter in model.named_parameters()}
    heads = {*head(model)}
    supernet = Supernet(model, candidates(model, "M"))
    trained = {label for label, parameter in model.named_parameters() if parameter.requires_grad}
    assert {label for parameter, label in before.items() if parameter.requires_grad} == heads == {*supernet.head}
    fresh = trained - heads
    assert all(".delta_" in label for label in fresh)
    assert len(fresh) == sum(len(list(delta.parameters())) for delta in supernet.deltas)
    assert [id(p) for p in supernet.parameters()] == [
        id(p) for p in (*supernet.deltas.parameters(), *supernet.head.values())
    ]
    assert supernet.numel == supernet.sizes.sum() == sum(p.numel() for p in supernet.deltas.parameters())
    assert supernet.sizes.tolist() == [position.size(model) for position in supernet.positions]
    assert supernet.names == [position.name for position in supernet.positions]


def test_the_same_seed_draws_the_same_modules(small_model):
    def draw():
        model = small_model("tiny-bert")
        torch.manual_seed(5)
        return Supernet(model, candidates(model, "M")).deltas.state_dict()

    one, other = draw(), draw()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_removed_supernet_leaves_the_plain_model(small_model, outputs, make_supernet, name):
    supernet, plain = make_supernet(name), small_model(name)
    supernet.remove()
    assert torch.equal(outputs(supernet.model), outputs(plain))
    assert [label for label, _ in supernet.model.named_modules()] == [label for label, _ in plain.named_modules()]


@pytest.mark.parametrize("name", ["adapter", "lora_r8", "bitfit"])
def test_baselines_stand_in_a_supernet_too(small_model, outputs, shaken, name):
    model = small_model("tiny-t5")
    plain = outputs(model)
    supernet = Supernet(model, baseline(model, name))
    shaken(supernet.deltas)
    assert not torch.equal(outputs(model), plain)
    with supernet.gated(gates(supernet, 0.0)):
        assert torch.equal(outputs(model), plain)


class Asked(TorchDispatchMode):
    """Counts the tensors that become Python numbers: on an accelerator each would wait for it."""

    def __init__(self):
        super().__init__()
        self.times = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.times += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["tiny-t5", "tiny-bert"])
def test_gates_are_never_asked_for_their_values(small_model, make_supernet, outputs, name):
    """A gated forward and backward pass asks for no more than the plain model's forward does."""
    plain, supernet = small_model(name), make_supernet(name)
    z = gates(supernet)
    with Asked() as usual:
        outputs(plain)
    with Asked() as asked, supernet.gated(z):
        outputs(supernet.model).sum().backward()
    with Asked() as sample:
        z[0].item()
    assert asked.times == usual.times and sample.times == 1


# --- bad input


def test_no_positions_and_positions_taken_are_refused(small_model):
    model = small_model("tiny-bert")
    with pytest.raises(InputError, match="at least one delta position"):
        Supernet(model, [])
    Supernet(model, candidates(model, "L"))
    with pytest.raises(InputError, match="carries a delta at bert.encoder.layer.0.attention.self.query:lora already"):
        Supernet(model, candidates(model, "L"))
