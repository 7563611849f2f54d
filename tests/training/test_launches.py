"""Launches are counted operator by operator."""

import warnings

import pytest
import torch
from torch.nn import functional

from paperlib.kernels.sparse_offset import SparseOffsets, add_products
from paperlib.training.launches import Launches, counted

X = torch.randn(4, 6)
with warnings.catch_warnings(action="ignore"):
    ROWS = torch.eye(4).to_sparse_csr()


def test_operators_count_and_views_and_unwritten_memory_do_not():
    a, b = torch.ones(3, 3), torch.ones(3, 3)
    with Launches() as found:
        (a @ b).T[0].view(3).add_(1).expand(2, 3).detach()
        torch.empty(4).zero_()
        a.unbind()
    assert found.operators == {"mm": 1, "add_": 1, "zero_": 1} and found.total == 3 and found.waits == 0


def test_a_list_counts_as_often_as_it_is_cut():
    tensors = [torch.ones(2) for _ in range(130)]
    with Launches() as found:
        torch.stack(tensors)
        torch._foreach_mul_(tensors, 2.0)
        torch._foreach_copy_(tensors, [torch.ones(2) for _ in tensors])
    assert [found.operators[name] for name in ("stack", "_foreach_mul_", "_foreach_copy_")] == [2, 2, 3]


def test_values_that_leave_their_tensor_are_waits():
    a = torch.ones(3)
    with Launches() as found:
        a.sum().item(), bool(a[0] > 0), a.nonzero()
    assert found.waits == 3


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: X + 1, 1),
        (lambda: X.clone().add_(1), 2),
        (lambda: X.t()[1:].flatten(0, 0).view(5, 4).chunk(2), 0),
        (lambda: X.t().contiguous(), 1),
        (lambda: torch.empty_like(X).copy_(X), 1),
        (lambda: ROWS.t(), 0),
        (lambda: X.t() @ ROWS, 1),
        (lambda: functional.layer_norm(functional.linear(X, X), (4,)), 2),
    ],
)
def test_views_and_allocations_start_nothing(call, expected):
    assert counted(call).total == expected


def test_a_sparse_offset_product_of_all_tasks_is_two_kernels():
    offsets = SparseOffsets.of([X[0]] * 3, [torch.arange(6, dtype=torch.int32)] * 3, [X[0, :2]] * 3, 6)
    assert counted(lambda: add_products(X, X[:, :2], offsets)).total == 2


def test_what_comes_once_is_over_before_counting():
    """The first call makes what later ones use."""
    made = []

    def work():
        if not made:
            made.append(X * 2)
        return made[0] + 1

    assert [counted(work, warm_up).total for warm_up in (1, 2)] == [1, 1]
