"""One-pass AdamW: the reference against torch's, the Triton path against the reference."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlib.kernels.adamw import COLUMNS, OnePassAdamW, Rate, Slot, reference, squares
from paperlib.kernels.packing import pack, unpack

WRITTEN = ("weight", "exp_avg", "exp_avg_sq", "gam")
OF_STEP = ("weight", "gradient", *COLUMNS[1:])
BF16_ULP = 2**-7
SHAPES = [(5, 7), (0,), (13,), (3, 0, 2), (9, 8)]


@pytest.fixture
def draw():
    """``draw(shape, dtype)``: numbers of a stream of its own."""
    generator = torch.Generator().manual_seed(0)
    return lambda shape, dtype=torch.float32: torch.randn(shape, generator=generator).to(dtype)


@pytest.fixture
def make(draw):
    """``make(shape, **more)``: a slot in the middle of a training."""

    def made(shape, dtype=torch.float32, **more):
        return Slot(draw(shape, dtype), draw(shape, dtype), draw(shape, dtype).square(), **more)

    return made


def move(slot, gradient, policy="grad_zero", clip=None, weight_decay=0.1):
    OnePassAdamW([slot], policy=policy).step([gradient], [Rate(1e-2, weight_decay, 3)], clip)


def written(slot):
    return {name: getattr(slot, name).clone() for name in WRITTEN if getattr(slot, name) is not None}


def copied(slot):
    return replace(slot, **{name: getattr(slot, name).clone() for name in COLUMNS if getattr(slot, name) is not None})


def same(slot, other):
    for name, tensor in written(other).items():
        assert torch.equal(getattr(slot, name), tensor), name


# --- Against torch.optim.AdamW ----------------------------------------------------------------------------------------


def trained(draw, dtype, steps=7, decay=0.1, starts=None, **kind):
    """Weights, moments after ``steps`` of torch's AdamW and of ours, with a rate that changes from step to step."""
    theirs = [torch.nn.Parameter(draw(shape, dtype)) for shape in SHAPES]
    ours = [each.detach().clone() for each in theirs]
    moments = [(torch.zeros_like(each), torch.zeros_like(each)) for each in ours]
    starts = [draw(shape, dtype) for shape in SHAPES] if starts else [None] * len(ours)
    slots = [Slot(w, *m, start=start) for w, m, start in zip(ours, moments, starts, strict=True)]
    one_pass = OnePassAdamW(slots)
    optimizer = torch.optim.AdamW(theirs, weight_decay=0.0 if starts[0] is not None else decay, **kind)
    for t in range(1, steps + 1):
        (group,) = optimizer.param_groups
        group["lr"] = lr = 1e-2 / t
        gradients = [draw(shape, dtype) for shape in SHAPES]
        for parameter, gradient, start in zip(theirs, gradients, starts, strict=True):
            parameter.grad = gradient.clone()
            if start is not None:
                with torch.no_grad():
                    parameter.lerp_(start, lr * decay)
        optimizer.step()
        one_pass.step(gradients, [Rate(lr, decay, t)] * len(slots))
    states = [optimizer.state[parameter] for parameter in theirs]
    expected = [(p.detach(), s["exp_avg"], s["exp_avg_sq"]) for p, s in zip(theirs, states, strict=True)]
    return [(w, *m) for w, m in zip(ours, moments, strict=True)], expected


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("foreach", [False, True])
def test_equal_to_torch_bit_for_bit(draw, foreach, decay):
    found, expected = trained(draw, torch.float32, decay=decay, foreach=foreach)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_decay_toward_a_start_equal_bit_for_bit_to_a_pull_before_torch_s_step(draw):
    found, expected = trained(draw, torch.float32, starts=True, foreach=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype, rtol, atol", [(torch.float32, 1e-6, 1e-7), (torch.bfloat16, BF16_ULP, 1e-6)])
def test_equal_to_torch_s_fused_to_rounding(draw, dtype, rtol, atol):
    found, expected = trained(draw, dtype, fused=True)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


# --- What it adds -----------------------------------------------------------------------------------------------------


def test_grad_zero_is_a_step_with_the_gradient_masked(make, draw):
    keep, gradient, slot = draw((6, 11)) > 0, draw((6, 11)), make((6, 11))
    before, other = written(slot), copied(slot)
    move(replace(slot, mask=pack(keep)), gradient)
    move(other, gradient * keep)
    same(slot, other)
    assert (slot.weight != before["weight"])[~keep].all(), "decay and momentum move masked entries too"


def test_freeze_steps_within_the_mask_and_keeps_all_bits_outside(make, draw):
    keep, gradient, slot = draw((6, 11)) > 0, draw((6, 11)), make((6, 11))
    before, free = written(slot), copied(slot)
    move(replace(slot, mask=pack(keep)), gradient, policy="freeze")
    move(free, gradient)
    for name, after in written(slot).items():
        assert torch.equal(after[keep], getattr(free, name)[keep])
        assert torch.equal(after[~keep], before[name][~keep]) and (getattr(free, name) != before[name]).all()


def test_freeze_keeps_what_is_not_a_number(make):
    slot = make((4,), mask=pack(torch.tensor([True, False, True, False])))
    slot.weight[1] = slot.exp_avg[3] = torch.nan
    move(slot, torch.tensor([1.0, torch.inf, 1.0, 1.0]), policy="freeze")
    assert slot.weight.isnan().tolist() == [False, True, False, False]
    assert slot.exp_avg.isnan().tolist() == [False, False, False, True]


def test_gradients_are_clipped_before_the_moments_and_left_as_they_are(make, draw):
    slot, gradient = make((6, 11)), draw((6, 11))
    other, before = copied(slot), gradient.clone()
    move(slot, gradient, clip=torch.tensor(0.3))
    move(other, gradient * 0.3)
    same(slot, other)
    assert torch.equal(gradient, before)


@pytest.mark.parametrize("policy", ["grad_zero", "freeze"])
def test_gam_sums_squares_neither_clipped_nor_masked(make, draw, policy):
    gam, gradient = draw((6, 11)).abs(), draw((6, 11))
    slot = make((6, 11), gam=gam.clone(), mask=pack(draw((6, 11)) > 0))
    move(slot, gradient, policy, clip=torch.tensor(0.3))
    torch.testing.assert_close(slot.gam, gam + gradient.square())


def test_each_tensor_has_its_own_type(make, draw):
    """fp32 moments of a bf16 weight are those of a weight as wide, and the weight is that one rounded."""
    slot, gradient = make((6, 11), torch.bfloat16, gam=draw((6, 11)).abs()), draw((6, 11), torch.bfloat16)
    narrow = replace(slot, exp_avg=slot.exp_avg.float(), exp_avg_sq=slot.exp_avg_sq.float())
    wide = replace(copied(narrow), weight=slot.weight.float())
    move(narrow, gradient)
    move(wide, gradient.float())
    assert torch.equal(narrow.weight, wide.weight.bfloat16())
    assert torch.equal(narrow.exp_avg, wide.exp_avg) and torch.equal(narrow.gam, wide.gam)


def test_a_parameter_that_is_trained_moves_in_place(make, draw):
    slot, gradient = make((6, 11)), draw((6, 11))
    parameter = torch.nn.Parameter(slot.weight.clone())
    move(replace(copied(slot), weight=parameter), gradient)
    move(slot, gradient)
    assert parameter.is_leaf and torch.equal(parameter.detach(), slot.weight)


def test_every_slot_has_rates_of_its_own_and_without_a_gradient_it_stays(make, draw):
    slots = [make((6, 11)) for _ in range(4)]
    slots[3] = replace(slots[3], mask=pack(draw((6, 11)) > 0))
    others = [copied(slot) for slot in slots]
    gradients = [draw((6, 11)), None, draw((6, 11)), None]
    rates = [Rate(1e-2, 0.1, 3), Rate(1e-2, 0.1, 3), Rate(5e-3, 0.0, 7), Rate(1e-2, 0.1, 3)]
    OnePassAdamW(slots).step(gradients, rates)
    for slot, other, gradient, rate in zip(slots, others, gradients, rates, strict=True):
        if gradient is not None:
            OnePassAdamW([other]).step([gradient], [rate])
        same(slot, other)


@pytest.mark.parametrize("masked", [False, True])
def test_norms_of_whole_and_of_masked_gradients(make, draw, masked):
    shapes = [(6, 11), (5,), (0,), (3, 3)]
    keeps = [draw(shape) > 0 for shape in shapes]
    slots = [replace(make(s), mask=pack(k) if masked else None) for s, k in zip(shapes, keeps, strict=True)]
    gradients = [draw(shape) for shape in shapes[:3]] + [None]
    kept = [g * keep if masked else g for g, keep in zip(gradients[:3], keeps, strict=False)]
    expected = [torch.nn.utils.get_total_norm(each) for each in (gradients[:3], kept)]
    torch.testing.assert_close(OnePassAdamW(slots).norms(gradients), torch.stack(expected))


def test_norms_of_no_gradients_are_zero_and_of_what_is_not_finite_are_not(make):
    slots = [make((3,), mask=pack(torch.tensor([True, False, True])))]
    assert OnePassAdamW(slots).norms([None]).tolist() == [0, 0]
    whole, within = OnePassAdamW(slots).norms([torch.tensor([1.0, torch.inf, 1.0])])
    assert whole == torch.inf and within == torch.tensor(2.0).sqrt()


@pytest.mark.parametrize(
    "wrong",
    [
        {"weight": torch.zeros(6, 11, dtype=torch.float64)},
        {"exp_avg": torch.zeros(11, 6)},
        {"mask": torch.ones(66, dtype=torch.uint8)},
        {"mask": torch.ones(6, 11, dtype=torch.bool)},
        {"start": torch.zeros(6, 11, device="meta")},
    ],
    ids=["type", "shape", "mask of bytes", "mask of bools", "device"],
)
def test_a_slot_that_does_not_fit_together_is_refused(make, wrong):
    with pytest.raises(ValueError, match="does not fit a weight"):
        replace(make((6, 11)), **wrong)


@pytest.mark.parametrize("wrong", [torch.zeros(66), torch.zeros(6, 11, dtype=torch.float64)], ids=["shape", "type"])
def test_a_gradient_that_does_not_fit_is_refused(make, wrong):
    with pytest.raises(ValueError, match="gradient"):
        move(make((6, 11)), wrong)


def test_a_step_before_the_first_and_an_unknown_policy_are_refused(make, draw):
    with pytest.raises(ValueError, match="counted from 1, got 0"):
        OnePassAdamW([make((2,))]).step([draw((2,))], [Rate(1e-2, 0.0, 0)])
    with pytest.raises(ValueError, match="grad_zero or freeze"):
        OnePassAdamW([make((2,))], policy="keep")


# --- The Triton path --------------------------------------------------------------------------------------------------

SIZES = [0, 1, 7, 8, 9, 2047, 2048, 2049, 4500]
TOLERANCES = {torch.float32: {"rtol": 2e-6, "atol": 1e-6}, torch.bfloat16: {"rtol": BF16_ULP, "atol": 1e-6}}
TYPES = st.sampled_from([torch.float32, torch.bfloat16])


def columns(sizes, types, present, device, arrange=lambda tensor: tensor):
    """The arguments of a step in the order of OF_STEP; empty lists for what is not ``present``."""
    generator = torch.Generator().manual_seed(sum(sizes))
    found = []
    for name in OF_STEP:
        drawn = [torch.randn(size, generator=generator) for size in sizes]
        if name == "mask":
            found.append([pack(each > 0).to(device) for each in drawn] if name in present else [])
        elif name in ("start", "gam") and name not in present:
            found.append([])
        else:
            drawn = [each.square() for each in drawn] if name in ("exp_avg_sq", "gam") else drawn
            found.append([arrange(each.to(device, types[name])) for each in drawn])
    rates = torch.rand(len(sizes), 4, generator=generator) / 10
    rates[:, 3] += 0.3
    return found, rates.to(device)


def agree(sizes, types, present, device, clip, freeze, arrange=lambda tensor: tensor):
    """Step and reference from the same numbers end at the same numbers."""
    from paperlib.kernels.adamw_triton import step

    found, rates = columns(sizes, types, present, device, arrange)
    expected, _ = columns(sizes, types, present, device)
    before, _ = columns(sizes, types, present, device)
    scalars = rates, None if clip is None else torch.tensor(clip, device=device), 0.9, 0.999, 1e-8, freeze
    step(*found, *scalars)
    reference(*expected, *scalars)
    for name, ours, theirs, old in zip(OF_STEP, found, expected, before, strict=True):
        for each, other, untouched in zip(ours, theirs, old, strict=True):
            if name not in WRITTEN:
                assert torch.equal(each, untouched), f"{name} must not change"
            else:
                torch.testing.assert_close(each, other, **TOLERANCES[each.dtype], msg=lambda m, n=name: f"{n}: {m}")
    if freeze and "mask" in present:
        for name, ours, old in zip(OF_STEP, found, before, strict=True):
            if name in ("weight", "exp_avg", "exp_avg_sq"):
                for each, untouched, bits in zip(ours, old, found[OF_STEP.index("mask")], strict=True):
                    off = ~unpack(bits, each.shape)
                    assert torch.equal(each[off], untouched[off]), f"{name} moved outside the mask"


ONE_TYPE = dict.fromkeys(OF_STEP, torch.float32)


@given(
    sizes=st.lists(st.sampled_from(SIZES), min_size=1, max_size=4),
    types=st.fixed_dictionaries({name: TYPES for name in OF_STEP}),
    present=st.sets(st.sampled_from(["mask", "start", "gam"])),
    clip=st.sampled_from([None, 0.25]),
    freeze=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_the_kernel_agrees_with_the_reference(kernel_device, sizes, types, present, clip, freeze):
    agree(sizes, types, present, kernel_device, clip, freeze)


@pytest.mark.parametrize("shift", [1, 3])
def test_tensors_that_begin_between_16_byte_borders(kernel_device, shift):
    def shifted(tensor):
        return torch.cat([tensor.new_zeros(shift), tensor])[shift:]

    agree([2049, 5], ONE_TYPE, {"mask", "start", "gam"}, kernel_device, 0.5, True, shifted)


def test_tensors_with_strides(kernel_device):
    def every_other(tensor):
        return torch.stack([tensor, tensor.new_zeros(tensor.shape)], -1)[..., 0]

    agree([2049, 5], ONE_TYPE, {"mask", "start", "gam"}, kernel_device, 0.5, True, every_other)


def test_transposed_weights_are_masked_as_they_are_indexed(kernel_device, draw):
    from paperlib.kernels.adamw_triton import step

    weight, gradient, exp_avg = (draw((33, 70)).to(kernel_device) for _ in range(3))
    keep = draw((70, 33)).to(kernel_device) > 0
    rates = torch.tensor([[1.0, 0.0, 0.1, 0.5]], device=kernel_device)
    scalars = rates, None, 0.9, 0.999, 1e-8, True
    found, expected = ([t.clone().T for t in (weight, gradient, exp_avg, exp_avg.square())] for _ in range(2))
    for apply, tensors in ((step, found), (reference, expected)):
        apply(*([each] for each in tensors), [pack(keep)], [], [], *scalars)
    assert torch.equal(found[0] == weight.T, ~keep)
    torch.testing.assert_close(found, expected, **TOLERANCES[torch.float32])


def test_one_launch_for_tensors_alike_and_none_for_nothing(kernel_device, monkeypatch):
    """Sixty tensors: one launch; with one that begins between borders: two; with empty ones only: none."""
    from paperlib.kernels import adamw_triton

    launches = []
    kernel = adamw_triton._adamw

    class Counted:
        def __getitem__(self, grid):
            launches.append(grid)
            return kernel[grid]

    monkeypatch.setattr(adamw_triton, "_adamw", Counted())
    for sizes, odd, expected in (([3, 4100] * 30, False, 1), ([3, 4100] * 30, True, 2), ([0, 0], False, 0)):
        found, rates = columns(sizes, ONE_TYPE, {"mask"}, kernel_device)
        if odd:
            found[0][0] = torch.zeros(4, device=kernel_device)[1:]
        launches.clear()
        adamw_triton.step(*found, rates, None, 0.9, 0.999, 1e-8, False)
        assert len(launches) == expected


def test_each_entry_is_read_once_and_written_once(kernel_device, monkeypatch):
    """Every address within the tensors, as the interpreter meets it; the bytes are those that traffic counts."""
    if kernel_device.type == "cuda":
        pytest.skip("addresses are seen in the interpreter only")
    from triton.runtime import interpreter

    from paperlib.kernels.adamw_triton import step
    from paperlib.kernels.traffic import Variant

    reads, writes = [], []
    load, store = interpreter._interpreter.load, interpreter._interpreter.store

    class Watched:
        def load(self, addresses, inside, *rest):
            reads.append(addresses[inside])
            return load(addresses, inside, *rest)

        def store(self, addresses, values, inside):
            writes.append(addresses[inside])
            return store(addresses, values, inside)

        def __getattr__(self, name):
            return getattr(interpreter_module, name)

    interpreter_module = interpreter._interpreter
    monkeypatch.setattr(interpreter, "_interpreter", Watched())
    size = 4096 + 8
    types = ONE_TYPE | {"gam": torch.float32, "start": torch.bfloat16}
    found, rates = columns([size], types, {"mask", "start", "gam"}, kernel_device)
    step(*found, rates, torch.tensor(0.5), 0.9, 0.999, 1e-8, True)

    total = 0
    for name, (tensor,) in zip(OF_STEP, found, strict=True):
        begin, width = tensor.data_ptr(), tensor.element_size()
        for kind, seen in (("read", reads), ("written", writes)):
            within = torch.tensor([int(a) for each in seen for a in each.ravel() if begin <= a < begin + tensor.nbytes])
            distinct = within.unique()
            assert len(distinct) == (tensor.numel() if kind == "read" or name in WRITTEN else 0), f"{name} {kind}"
            # Eight entries share a byte of the mask, which is in the cache by then.
            assert len(within) == len(distinct) or name == "mask", f"{name} {kind} more than once"
            total += len(distinct) * width
    assert total / size == Variant(start=2, gam=4, clip=True, policy="freeze").one_pass


@given(
    sizes=st.lists(st.sampled_from(SIZES), min_size=1, max_size=4),
    kind=TYPES,
    masked=st.booleans(),
    shift=st.integers(0, 3),
)
@settings(deadline=None, max_examples=25)
def test_the_kernel_s_squares_agree_with_the_reference_s(kernel_device, sizes, kind, masked, shift):
    """Beginning at 16-byte borders and, shifted, between them."""
    from paperlib.kernels.adamw_triton import Ready

    types = ONE_TYPE | {"gradient": kind}
    (weight, gradient, *others), _ = columns(sizes, types, {"mask"} if masked else set(), kernel_device)
    gradient[0] = torch.cat([gradient[0].new_zeros(shift), gradient[0]])[shift:]
    found = Ready([weight, *others]).squares(gradient)
    torch.testing.assert_close(found, squares(gradient, others[2]), rtol=1e-6, atol=1e-9)


# --- The operator -----------------------------------------------------------------------------------------------------


def test_the_operator_declares_what_it_writes_and_can_be_traced(kernel_device):
    from paperlib.kernels import adamw_triton  # noqa: F401

    found, rates = columns([7, 30], ONE_TYPE, {"mask", "gam"}, kernel_device)
    clip = torch.tensor(0.5, device=kernel_device)
    torch.library.opcheck(torch.ops.paperlib.adamw.default, (*found, rates, clip, 0.9, 0.999, 1e-8, False))


def test_compiled_it_does_the_same(kernel_device):
    from paperlib.kernels.adamw_triton import step

    found, rates = columns([7, 3000], ONE_TYPE, {"mask", "gam"}, kernel_device)
    expected, _ = columns([7, 3000], ONE_TYPE, {"mask", "gam"}, kernel_device)
    torch.compile(step, backend="aot_eager", fullgraph=True)(*found, rates, None, 0.9, 0.999, 1e-8, True)
    reference(*expected, rates, None, 0.9, 0.999, 1e-8, True)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.fixture
def through_the_kernel(kernel_device, monkeypatch):
    """The device, and OnePassAdamW takes its tensors to the kernel, also where the interpreter runs it."""
    monkeypatch.setattr("paperlib.kernels.adamw.taken_by", lambda tensor: tensor.device.type == kernel_device.type)
    return kernel_device


def test_the_whole_way_from_slots_to_launches(through_the_kernel, make, draw, monkeypatch):
    """Several steps with gradients that come and go, at other addresses each: as in plain PyTorch."""
    device = through_the_kernel
    plain = [make(shape) for shape in ((33, 70), (5,), (33, 70), (0,))]
    plain[2] = replace(plain[2], mask=pack(draw((33, 70)) > 0), gam=draw((33, 70)).square())
    moved = [
        replace(s, **{n: getattr(s, n).clone().to(device) for n in COLUMNS if getattr(s, n) is not None}) for s in plain
    ]
    here = OnePassAdamW(moved, policy="freeze")
    monkeypatch.setattr("paperlib.kernels.adamw.taken_by", lambda tensor: False)
    there = OnePassAdamW(plain, policy="freeze")
    for t in range(1, 5):
        gradients = [None if t == 2 and i != 2 else draw(slot.weight.shape) for i, slot in enumerate(plain)]
        rates = [Rate(1e-2 / t, 0.1 * (i % 2), t) for i in range(len(plain))]
        there.step(gradients, rates, torch.tensor(0.5))
        given = [None if each is None else each.to(device) for each in gradients]
        here.step(given, rates, torch.tensor(0.5, device=device))
        torch.testing.assert_close(here.norms(given).cpu(), there.norms(gradients), rtol=1e-6, atol=0)
    for slot, other in zip(moved, plain, strict=True):
        for name, tensor in written(other).items():
            torch.testing.assert_close(getattr(slot, name).cpu(), tensor, **TOLERANCES[torch.float32])


def test_what_autograd_has_kept_is_known_to_have_changed(through_the_kernel, make, draw):
    slot = make((33,))
    parameter = torch.nn.Parameter(slot.weight.to(through_the_kernel))
    product = parameter * parameter
    moments = {name: getattr(slot, name).to(through_the_kernel) for name in ("exp_avg", "exp_avg_sq")}
    move(Slot(parameter, **moments), draw((33,)).to(through_the_kernel))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


def test_compiled_the_whole_step_does_the_same(through_the_kernel, make, draw):
    slots = [make((33,), gam=draw((33,)).square()), make((5, 7), mask=pack(draw((5, 7)) > 0))]
    gradients = [draw(slot.weight.shape).to(through_the_kernel) for slot in slots]
    one, other = (
        [
            replace(
                s, **{n: getattr(s, n).clone().to(through_the_kernel) for n in COLUMNS if getattr(s, n) is not None}
            )
            for s in slots
        ]
        for _ in range(2)
    )
    rates = [Rate(1e-2, 0.1, 3), Rate(5e-3, 0.0, 3)]
    OnePassAdamW(one).step(gradients, rates)
    torch.compile(OnePassAdamW(other).step, backend="aot_eager", fullgraph=True)(gradients, rates)
    for slot, compiled in zip(one, other, strict=True):
        for name, tensor in written(slot).items():
            torch.testing.assert_close(getattr(compiled, name), tensor, **TOLERANCES[torch.float32])
