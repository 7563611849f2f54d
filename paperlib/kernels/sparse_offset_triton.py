"""The Triton path of :mod:`paperlib.kernels.sparse_offset`: two launches for all tasks, one that turns x and one for the products.

A program sums a tile of outputs by tokens for one task: entry j of each of its rows at a time, so that reading x is reading a run of tokens.
Programs of all tasks over one tile follow one another and find its part of x and of the shared product in the L2 cache. Importing this needs Triton.
"""

import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

# 16 sums for each of 128 threads; a run of 64 tokens is 128 or 256 bytes, whole cache lines.
OUTPUTS = 32
TOKENS = 64


@triton_op("paperlib::add_products", mutates_args=())
def add_products(x: Tensor, known: Tensor, values: Tensor, places: Tensor, starts: Tensor, biases: Tensor) -> Tensor:
    """y, (N, tokens, out), of the type of ``known``. ``x``: (tokens, in); ``known``: (tokens, out), ``starts``, ``biases``: contiguous."""
    tasks, outputs = biases.shape
    target = known.new_empty(tasks, *known.shape)
    if target.numel():
        turned = x.t().contiguous()
        grid = (tasks, triton.cdiv(outputs, OUTPUTS), triton.cdiv(len(x), TOKENS))
        wrap_triton(_add_products)[grid](
            turned, known, target, values, places, starts, biases, len(x), x.shape[1], outputs, OUTPUTS, TOKENS
        )
    return target


# Within Triton's interpreter a kernel would be run on stand-ins that have no memory.
@add_products.register_fake
def _(x, known, values, places, starts, biases):
    return known.new_empty(len(biases), *known.shape)


@triton.jit
def _add_products(
    turned,
    known,
    target,
    values,
    places,
    starts,
    biases,
    tokens,
    inputs,
    outputs,
    OUTPUTS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    task = tl.program_id(0)
    row = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    token = (tl.program_id(2) * TOKENS + tl.arange(0, TOKENS)).to(tl.int64)
    is_row, is_token = row < outputs, token < tokens
    starts += task * (outputs + 1)
    start = tl.load(starts + row, mask=is_row, other=0)
    stop = tl.load(starts + row + 1, mask=is_row, other=0)
    sums = tl.zeros([OUTPUTS, TOKENS], tl.float32)
    for j in range(tl.max(stop - start)):
        is_kept = start + j < stop
        value = tl.load(values + start + j, mask=is_kept, other=0.0).to(tl.float32)
        column = tl.load(places + start + j, mask=is_kept, other=0) - row * inputs
        inside = is_kept[:, None] & is_token[None, :]
        run = tl.load(turned + column.to(tl.int64)[:, None] * tokens + token[None, :], mask=inside, other=0.0)
        sums += value[:, None] * run.to(tl.float32)
    inside = is_row[:, None] & is_token[None, :]
    at = token[None, :] * outputs + row[:, None]
    sums += tl.load(known + at, mask=inside, other=0.0).to(tl.float32)
    sums += tl.load(biases + task * outputs + row, mask=is_row, other=0.0).to(tl.float32)[:, None]
    tl.store(target + task.to(tl.int64) * tokens * outputs + at, sums.to(target.dtype.element_ty), mask=inside)
