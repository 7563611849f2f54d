"""Bytes of a step by torch's operators, counted as they run."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from paperlib.kernels.traffic import Variant, variants


class Counted(TorchDispatchMode):
    """Bytes of all tensors that operators read and write; tensors of one entry aside."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        given = dict(zip((each.name for each in func._schema.arguments), args, strict=False)) | (kwargs or {})
        read, written = {}, {}
        for argument in func._schema.arguments:
            value = given.get(argument.name)
            # The fused step declares gradients as written, which it does only to scale them. What is given as out is only written.
            writes = argument.alias_info is not None and argument.alias_info.is_write and argument.name != "grads"
            for tensor in value if isinstance(value, list | tuple) else [value]:
                if isinstance(tensor, torch.Tensor) and tensor.numel() > 1:
                    read |= {} if argument.is_out else {tensor.data_ptr(): tensor.nbytes}
                    written |= {tensor.data_ptr(): tensor.nbytes} if writes else {}
        if isinstance(found, torch.Tensor) and found.numel() > 1:
            written[found.data_ptr()] = found.nbytes
        self.bytes += sum(read.values()) + sum(written.values())
        return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "changes", [{}, {"gam": 4}, {"policy": "freeze"}, {"policy": "grad_zero", "start": True, "gam": 4}]
)
def test_in_turn_is_what_torch_moves(dtype, changes):
    size, n = dtype.itemsize, 1000
    variant = Variant(size, size, size, **changes | {"start": size * ("start" in changes), "clip": True})
    weight, gradient, exp_avg, exp_avg_sq, start = (torch.rand(n, dtype=dtype) for _ in range(5))
    gam, mask = torch.zeros(n), torch.rand(n) > 0.5
    moving, steps = [weight, exp_avg, exp_avg_sq], torch.ones(())
    with Counted() as counted:
        if variant.gam:
            gam.addcmul_(gradient, gradient)
        if variant.policy:
            gradient.mul_(mask)
        gradient.mul_(torch.tensor(0.5))
        if variant.start:
            weight.lerp_(start, 0.1)
        before = [each.clone() for each in moving] if variant.policy == "freeze" else []
        options = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8}
        torch._fused_adamw_(
            [weight], [gradient], [exp_avg], [exp_avg_sq], [], [steps], **options, amsgrad=False, maximize=False
        )
        for old, now in zip(before, moving, strict=False):
            torch.where(mask, now, old, out=now)
    assert counted.bytes / n == sum(variant.in_turn.values())


def test_numbers_to_expect():
    """fp32: 28 bytes, 4 more with a start, 8 with GAM, 1/8 with a mask, nothing for clipping or freezing."""
    found = {name: variant.one_pass for name, variant in variants(4).items()}
    assert found == {
        "AdamW": 28,
        "clipped": 28,
        "clipped, toward the start": 32,
        "clipped, with GAM": 36,
        "clipped, masked": 28.125,
        "clipped, masked, with GAM": 36.125,
        "clipped, frozen": 28.125,
    }
