"""How many kernels a piece of work launches on a GPU, and how often it waits for it: counted without one, operator by operator.

On a fast GPU a step of a small batch takes as long as the host needs to launch its kernels, some 5 microseconds each, whatever these
compute: counting them tells what timing on a CPU does not.
"""

import math
from collections import Counter
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal")
UNWRITTEN = ("empty", "new_empty", "lift_fresh")  # and what begins like them: memory without values
JOINED = 128  # tensors that one launch of cat or stack reads
# Tensors per launch of a foreach or fused operator over one, two, ... lists (torch's MultiTensorApply).
LISTED = (110, 64, 48, 36, 30)
# Operators of ours that launch more than one kernel on a GPU, and what stands in for them on a CPU.
OURS = {"add_products": 2, "add_products_plain": 2}


class Launches(TorchDispatchMode):
    """Counts within its context; a context manager.

    ``operators``: launches by operator's name. ``waits``: times a value left its tensor for the host. An operator counts once, one over lists of
    tensors as often as torch cuts the lists; views, metadata and memory without values count nothing. So a matrix product that a GPU splits, a
    padding or a gradient of attention is counted low, on both sides of a ratio.
    """

    def __init__(self):
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.waits = 0

    @property
    def total(self) -> int:
        """All launches."""
        return self.operators.total()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        self.waits += name in WAITS
        if not name.startswith(UNWRITTEN) and not _is_view(function, (args, kwargs), found):
            self.operators[name] += _launches(name, args)
        return found


def counted(work: Callable[[], object], warm_up: int = 0) -> Launches:
    """What one call of ``work`` launches, after ``warm_up`` calls: the first step of a training makes the optimizer's moments."""
    for _ in range(warm_up):
        work()
    with Launches() as launches:
        work()
    return launches


def _is_view(function, given, found) -> bool:
    """Nothing is written: what comes out lies in what went in."""
    sources = {_memory(each) for each in tree_leaves(given) if isinstance(each, torch.Tensor)}
    results = [each for each in tree_leaves(found) if isinstance(each, torch.Tensor)]
    inside = all(_memory(each) in sources for each in results)
    return inside and not function._schema.is_mutable and function.overloadpacket.__name__ not in WAITS


def _memory(tensor: torch.Tensor) -> int:
    """Where its values lie; those of compressed rows have a storage of their own."""
    values = tensor if tensor.layout == torch.strided else tensor.values()
    return values.untyped_storage()._cdata


def _launches(name: str, args) -> int:
    lists = [each for each in args if isinstance(each, list | tuple) and each and isinstance(each[0], torch.Tensor)]
    if name in ("cat", "stack"):
        return math.ceil(len(lists[0]) / JOINED)
    if name.startswith(("_foreach", "_fused")):
        return math.ceil(len(lists[0]) / LISTED[min(len(lists), len(LISTED)) - 1])
    return OURS.get(name, 1)
