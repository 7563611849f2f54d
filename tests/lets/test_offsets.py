"""Compact offsets (LeTS): to dense and back, in place and taken back bit for bit, stored, in at most 8 bytes a kept weight."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from paperlib.errors import InputError
from paperlib.lets import offsets, pruning
from paperlib.lets.offsets import Offset, applied, compact, from_tensors, offset_linear, to_tensors

unhurried = settings(deadline=None, max_examples=40)
shapes = st.lists(st.integers(0, 7), min_size=1, max_size=3)


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def chosen(shape, share=0.3, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def bits(tensor):
    return tensor.detach().reshape(-1).view(torch.uint8).tolist()


def model():
    return {"q": normal(8, 6, seed=1), "v": normal(6, 8, seed=2), "bias": normal(6, seed=3)}


def some(seed=4):
    """Offsets of two of the three weights."""
    delta = {"q": 1e-3 * normal(8, 6, seed=seed), "v": 1e-3 * normal(6, 8, seed=seed + 1)}
    return compact(delta, {name: chosen(each.shape, seed=seed) for name, each in delta.items()})


# --- dense and compact


@unhurried
@given(shapes, st.floats(0, 1), st.integers(0, 100), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_dense_and_back(shape, share, seed, dtype):
    dense, mask = normal(*shape, seed=seed, dtype=dtype), chosen(shape, share, seed)
    offset = Offset.of(dense, mask)
    expected = torch.where(mask, dense, 0.0)
    assert bits(offset.dense()) == bits(expected) and offset.dense().dtype == dtype
    again = Offset.of(offset.dense(), mask)
    assert torch.equal(again.indices, offset.indices) and bits(again.values) == bits(offset.values)


def test_kept_zeros_stay_and_dropped_values_go():
    offset = Offset.of(torch.tensor([[0.0, 1.0], [-0.0, 3.0]]), torch.tensor([[True, False], [True, True]]))
    assert offset.indices.tolist() == [0, 2, 3] and offset.values.tolist() == [0.0, -0.0, 3.0]
    assert bits(offset.dense()) == bits(torch.tensor([[0.0, 0.0], [-0.0, 3.0]]))


def test_a_transposed_offset_is_read_in_the_order_of_its_shape():
    dense, mask = normal(4, 6).t(), chosen((4, 6)).t()
    torch.testing.assert_close(Offset.of(dense, mask).dense(), dense * mask, rtol=0, atol=0)


def test_the_gradient_of_the_values_is_that_of_the_kept_weights():
    dense, mask = normal(5, 4), chosen((5, 4))
    offset, upstream = Offset.of(dense, mask), normal(5, 4, seed=9)
    values = torch.nn.Parameter(offset.values)
    (Offset(values, offset.indices, offset.shape).dense() * upstream).sum().backward()
    assert torch.equal(values.grad, upstream[mask])


# --- the product that keeps nothing dense


def parts_of_a_product(dtype=torch.float64, kept=0.3):
    """x (2, 5, 6), W^p (4, 6), values and places of an offset, bias (4)."""
    offset = Offset.of(normal(4, 6, seed=1, dtype=dtype), chosen((4, 6), kept))
    x, bias = normal(2, 5, 6, seed=3, dtype=dtype), normal(4, seed=4, dtype=dtype)
    return [each.requires_grad_() for each in (x, offset.values, bias)], normal(4, 6, seed=2, dtype=dtype), offset


@pytest.mark.parametrize("reused", [False, True], ids=["merged", "offset alone"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 1.0])
def test_the_product_is_the_dense_one_with_its_gradients(reused, kept):
    inputs, frozen, offset = parts_of_a_product(kept=kept)
    base = torch.zeros_like(frozen) if reused else frozen

    def ours(x, values, bias):
        return offset_linear(x, None if reused else frozen, values, offset.indices, offset.shape, bias)

    def dense(x, values, bias):
        weight = base.flatten().index_add(0, offset.indices, values).view(offset.shape)
        return torch.nn.functional.linear(x, weight, bias)

    assert torch.equal(ours(*inputs), dense(*inputs))
    assert torch.autograd.gradcheck(ours, inputs)
    slopes = [torch.autograd.grad(each(*inputs).square().sum(), inputs) for each in (ours, dense)]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_the_product_saves_nothing_dense_but_the_frozen_weight_itself():
    inputs, frozen, offset = parts_of_a_product()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: (saved.append(tensor), tensor)[1], lambda each: each):
        offset_linear(inputs[0], frozen, inputs[1], offset.indices, offset.shape, inputs[2])
    weights = [each for each in saved if each.shape == frozen.shape]
    assert [each.data_ptr() for each in weights] == [frozen.data_ptr()]
    assert not frozen.requires_grad and len(saved) == 4


@pytest.mark.parametrize("needed", [0, 1, 2])
def test_only_the_gradients_that_are_asked_for(needed):
    inputs, frozen, offset = parts_of_a_product()
    inputs = [each.detach().requires_grad_(place == needed) for place, each in enumerate(inputs)]
    offset_linear(inputs[0], frozen, inputs[1], offset.indices, offset.shape, inputs[2]).sum().backward()
    assert [each.grad is not None for each in inputs] == [place == needed for place in range(3)]


def test_the_product_under_autocast():
    """bf16 in the product, fp32 in the gradients, within bf16's 3 digits of full precision."""
    inputs, frozen, offset = parts_of_a_product(torch.float32)

    def gradients():
        scores = offset_linear(inputs[0], frozen, inputs[1], offset.indices, offset.shape, inputs[2])
        return scores, torch.autograd.grad(scores.float().sum(), inputs)

    full, slopes = gradients()
    with torch.autocast("cpu", torch.bfloat16):
        half, rounded = gradients()
    assert half.dtype == torch.bfloat16 and all(each.dtype == torch.float32 for each in rounded)
    torch.testing.assert_close(half.float(), full, rtol=0.02, atol=0.05)
    for one, other in zip(rounded, slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.1)


# --- size


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_kept_weight_takes_at_most_eight_bytes(dtype):
    scores = {"a": normal(200, 300).abs(), "b": normal(40_000, seed=1).abs()}
    masks = pruning.masks(scores, 0.005)
    kept = compact({name: each.to(dtype) for name, each in scores.items()}, masks)
    count = sum(int(mask.sum()) for mask in masks.values())
    assert count == 500
    assert sum(offset.nbytes for offset in kept.values()) == count * (8 if dtype == torch.float32 else 6)


def test_the_largest_weight_32_bits_can_place():
    one = (torch.ones(1), torch.tensor([2**31 - 1], dtype=torch.int32))
    assert Offset(*one, torch.Size([2**16, 2**15])).indices.item() == 2**31 - 1
    with pytest.raises(InputError, match="32-bit places reach"):
        Offset(*one, torch.Size([2**16, 2**15 + 1]))


# --- in place


def test_inside_the_weights_are_the_sums_and_afterwards_what_they_were():
    weights, kept = model(), some()
    before = {name: bits(each) for name, each in weights.items()}
    expected = {name: weights[name] + kept[name].dense() for name in kept}
    places = {name: each.data_ptr() for name, each in weights.items()}
    with applied(weights, kept):
        for name, each in expected.items():
            assert torch.equal(weights[name], each)
        assert bits(weights["bias"]) == before["bias"]
    assert {name: bits(each) for name, each in weights.items()} == before
    assert {name: each.data_ptr() for name, each in weights.items()} == places


@unhurried
@given(st.integers(0, 1000), st.integers(-30, 30), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_taken_back_bit_for_bit_whatever_the_sizes(seed, exponent, dtype):
    """Subtracting what was added would round; a small weight under a large offset would be lost."""
    weight = normal(30, seed=seed, dtype=dtype)
    weight[:3] = torch.tensor([-0.0, float("inf"), 1e-40])
    before = bits(weight)
    offset = Offset.of((2.0**exponent * normal(30, seed=seed + 1)).to(dtype), chosen((30,), 0.7, seed))
    with applied({"w": weight}, {"w": offset}):
        pass
    assert bits(weight) == before


def test_adding_and_subtracting_would_not_give_the_weight_back():
    weight, offset = normal(1000), normal(1000, seed=1)
    assert not torch.equal(weight + offset - offset, weight)


def test_they_are_taken_back_after_an_error_inside():
    weights, kept = model(), some()
    before = {name: bits(each) for name, each in weights.items()}
    with pytest.raises(RuntimeError, match="inside"), applied(weights, kept):
        raise RuntimeError("inside")
    assert {name: bits(each) for name, each in weights.items()} == before


def test_and_after_an_offset_that_does_not_fit():
    weights, kept = model(), some()
    before = {name: bits(each) for name, each in weights.items()}
    with pytest.raises(InputError, match="'bias'"), applied(weights, kept | {"bias": kept["q"]}):
        pass
    assert {name: bits(each) for name, each in weights.items()} == before


def test_nested_offsets_add_up_and_come_off_one_by_one():
    weights, one, two = model(), some(4), some(40)
    before, plain = {name: bits(each) for name, each in weights.items()}, model()
    with applied(weights, one):
        middle = {name: bits(each) for name, each in weights.items()}
        with applied(weights, two):
            assert torch.equal(weights["q"], plain["q"] + one["q"].dense() + two["q"].dense())
        assert {name: bits(each) for name, each in weights.items()} == middle
    assert {name: bits(each) for name, each in weights.items()} == before


def test_parameters_take_offsets_without_a_graph():
    parameter = torch.nn.Parameter(normal(8, 6))
    values = torch.nn.Parameter(some()["q"].values)
    with applied({"q": parameter}, {"q": Offset(values, some()["q"].indices, parameter.shape)}):
        assert parameter.grad_fn is None and parameter.is_leaf
    assert torch.equal(parameter.detach(), normal(8, 6))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_a_changed_weight_gives_the_frozen_product_and_the_sparse_one(dtype, tolerance):
    """W^f x = W^p x + (c W^d) x, the reuse identity, with the second product over the kept entries alone."""
    weight, x = normal(40, 64, dtype=dtype), normal(64, 16, seed=1, dtype=dtype)
    offset = Offset.of(0.02 * normal(40, 64, seed=2, dtype=dtype), chosen((40, 64), 0.05))
    frozen = weight @ x
    rows, columns = offset.indices.long() // 64, offset.indices.long() % 64
    sparse = torch.zeros_like(frozen).index_add_(0, rows, offset.values[:, None] * x[columns])
    with applied({"w": weight}, {"w": offset}):
        merged = weight @ x
    assert (frozen + sparse - merged).abs().max() < tolerance * frozen.abs().max()
    assert (frozen - merged).abs().max() > 1e-3 * frozen.abs().max()


# --- stored


def test_through_safetensors_and_back():
    kept, weights = some(), model()
    tensors = to_tensors(kept)
    assert sorted(tensors) == ["q.indices", "q.values", "v.indices", "v.values"]
    again = from_tensors(load(save(tensors)), weights)
    assert again.keys() == kept.keys()
    for name, offset in kept.items():
        assert torch.equal(again[name].indices, offset.indices) and again[name].shape == offset.shape
        assert bits(again[name].values) == bits(offset.values)


def test_names_with_dots_stay_whole():
    offset = some()["q"]
    again = from_tensors(to_tensors({"encoder.layer.0.values": offset}), {"encoder.layer.0.values": model()["q"]})
    assert [*again] == ["encoder.layer.0.values"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda tensors: tensors.pop("q.indices"), "q.indices"),
        (lambda tensors: tensors.update({"q.mask": torch.ones(1)}), "q.mask"),
        (lambda tensors: tensors.update({"w.values": torch.ones(1), "w.indices": torch.zeros(1).int()}), "w"),
    ],
)
def test_what_does_not_belong_is_named(change, named):
    tensors = to_tensors(some())
    change(tensors)
    with pytest.raises(InputError, match=f"look at {named}"):
        from_tensors(tensors, model())


# --- bad input


@pytest.mark.parametrize("places", [[0, 6], [-1, 2], [2, 1], [3, 3]])
def test_places_must_rise_within_the_weight(places):
    with pytest.raises(InputError, match="must rise, each from 0 to 5"):
        Offset(torch.ones(2), torch.tensor(places, dtype=torch.int32), torch.Size([2, 3]))


@pytest.mark.parametrize(
    ("values", "places", "message"),
    [
        (torch.ones(2), torch.tensor([0, 1]), "give int32"),
        (torch.ones(2).int(), torch.tensor([0, 1]).int(), "give int32"),
        (torch.ones(3), torch.tensor([0, 1]).int(), "at places of shape"),
        (torch.ones(1, 2), torch.tensor([[0, 1]]).int(), "at places of shape"),
    ],
)
def test_values_and_places_must_fit_each_other(values, places, message):
    with pytest.raises(InputError, match=message):
        Offset(values, places, torch.Size([2, 3]))


@pytest.mark.parametrize("mask", [torch.ones(3, 2).bool(), torch.ones(2, 3)])
def test_masks_must_be_boolean_and_of_the_same_shape(mask):
    with pytest.raises(InputError, match="mask of shape"):
        Offset.of(normal(2, 3), mask)


@pytest.mark.parametrize("weights", [{}, {"q": normal(6, 8)}, {"q": normal(6, 8).t()}])
def test_weights_must_be_there_of_that_shape_and_contiguous(weights):
    with pytest.raises(InputError, match="offset 'q'"), applied(weights, {"q": some()["q"]}):
        pass


def test_offsets_of_nothing_change_nothing():
    weights = model()
    with applied(weights, {}):
        assert torch.equal(weights["q"], model()["q"])
    assert offsets.to_tensors({}) == {} == from_tensors({}, weights)


def test_a_file_gives_the_offsets_back_and_nothing_half_written_beside_it(tmp_path):
    kept = some()
    offsets.save(tmp_path / "new" / "offsets.safetensors", kept)
    again = offsets.load(tmp_path / "new" / "offsets.safetensors", model())
    assert again.keys() == kept.keys() and [each.name for each in (tmp_path / "new").iterdir()] == [
        "offsets.safetensors"
    ]
    assert all(torch.equal(again[name].dense(), kept[name].dense()) for name in kept)
