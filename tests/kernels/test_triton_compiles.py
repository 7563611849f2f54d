"""The kernels of selection, mixing and sparse offsets compiled for a GPU where there is none: the interpreter takes more than the compiler does."""

import pytest

# Prints for every case how often each instruction stands in the code for compute capability 9.0. Addresses and matrices' widths are multiples
# of 16, as in real models.
SCRIPT = """
import json, re, sys
from collections import Counter
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from paperlib.kernels import mixing_triton, selection_triton, sparse_offset_triton

INTEGERS = {"seed": "i64", "beyond": "fp32", "factor": "fp32"}

def compiled(kernel, pointers, constants):
    names = kernel.arg_names
    types = {name: pointers.get(name, "constexpr" if name in constants else INTEGERS.get(name, "i32")) for name in names}
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in names if name in pointers or name in ("rows", "columns")}
    fixed = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, types, fixed, aligned)
    ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
    return Counter(re.findall(r"\\b((?:ld|st|red|atom)\\.(?:global|local)[.\\w:]*)", ptx))

def selection(kernel, *pointers, **constants):
    tiles = {"SLOTS": 64, "EACH": False, "TYPE": tl.float32, "ALIGNED": True, "BLOCK": selection_triton.BLOCK, "TILE": selection_triton.TILE}
    return compiled(kernel, dict(pointers), tiles | constants)

def mixing(kernel, kind, gate=None, **pointers):
    constants = {"DROP": 2**31 + 1, "KIND": kind, "ROWS": mixing_triton.ROWS, "COLUMNS": mixing_triton.COLUMNS}
    given = pointers | ({"gate": gate} if gate else {})
    return compiled(kernel, given, constants if gate else constants | {"gate": None})

table, state = ("table", "*i64"), ("state", "*i64")
count, mask = selection_triton._count, selection_triton._mask
sparse = {"values": "*fp32", "places": "*i32", "starts": "*i32", "biases": "*fp32"}
to_bf16 = {"weight": "*fp32", "start": "*fp32", "target": "*bf16"}
cases = {
    "first pass": selection(count, table, state, SHIFT=24),
    "last pass of each": selection(count, table, state, SHIFT=0, EACH=True),
    "unaligned": selection(count, table, state, SHIFT=16, ALIGNED=False),
    "fp64": selection(count, table, state, SHIFT=8, TYPE=tl.float64),
    "descend": compiled(selection_triton._descend, {"state": "*i64", "ranks": "*i64", "chosen": "*fp32"}, {"TYPE": tl.float32, "SHIFT": 0}),
    "descend fp64": compiled(selection_triton._descend, {"state": "*i64", "ranks": "*i64", "chosen": "*fp64"}, {"TYPE": tl.float64, "SHIFT": 0}),
    "mask": selection(mask, table, ("smallest", "*fp32")),
    "mask of each": selection(mask, table, ("smallest", "*fp32"), EACH=True),
    "mixed, drawn": mixing(mixing_triton._mix, 0, **to_bf16),
    "mixed, columns": mixing(mixing_triton._mix, 1, "*i1", **to_bf16),
    "mixed, entries": mixing(mixing_triton._mix, 2, "*i1", **to_bf16),
    "mixed, bits": mixing(mixing_triton._mix, 3, "*u8", **to_bf16),
    "gated, drawn": mixing(mixing_triton._gate, 0, gradient="*bf16", target="*fp32"),
    "gated, bits": mixing(mixing_triton._gate, 3, "*u8", gradient="*bf16", target="*fp32"),
    "count open": compiled(mixing_triton._count_open, {"counts": "*i32"}, {"DROP": 7, "COUNTED": mixing_triton.COUNTED}),
    "products": compiled(
        sparse_offset_triton._add_products,
        sparse | {"turned": "*bf16", "known": "*bf16", "target": "*bf16"},
        {"OUTPUTS": sparse_offset_triton.OUTPUTS, "TOKENS": sparse_offset_triton.TOKENS},
    ),
}
print(json.dumps(cases))
"""


@pytest.fixture(scope="module")
def instructions(compiled):
    """``instructions[case]``: how often each instruction that moves global or local memory stands in its code."""
    return compiled(SCRIPT)


def test_no_registers_are_spilled(instructions):
    spilled = {case for case, found in instructions.items() if any(".local" in name for name in found)}
    assert instructions and not spilled


@pytest.mark.parametrize("case", ["first pass", "last pass of each", "mask", "mask of each"])
def test_values_are_read_16_bytes_at_a_time(instructions, case):
    """4096 values by 128 threads: 8 reads of four values."""
    assert instructions[case]["ld.global.v4.b32"] == 8


def test_values_that_begin_between_borders_are_read_one_at_a_time(instructions):
    assert instructions["unaligned"]["ld.global.b32"] and "ld.global.v4.b32" not in instructions["unaligned"]


def test_counts_are_added_without_waiting_for_what_was_there(instructions):
    assert instructions["first pass"]["red.global.gpu.relaxed.add.u64"] and not any(
        name.startswith("atom") for case in instructions.values() for name in case
    )


@pytest.mark.parametrize(
    ("case", "extra"), [("mixed, drawn", 0), ("mixed, columns", 0), ("mixed, entries", 2), ("mixed, bits", 0)]
)
def test_a_weight_is_mixed_16_bytes_at_a_time(instructions, case, extra):
    """32 entries per thread: 8 reads of four fp32 values of each matrix, 4 writes of eight bf16 values; a bool gate takes two more reads."""
    found = instructions[case]
    assert (found["ld.global.v4.b32"], found["st.global.v4.b32"]) == (16 + extra, 4)


def test_a_drawn_gate_is_not_read(instructions):
    assert set(instructions["mixed, drawn"]) == {"ld.global.v4.b32", "st.global.v4.b32"}


def test_a_gradient_is_gated_as_it_is_cast(instructions):
    found = instructions["gated, drawn"]
    assert (found["ld.global.v4.b32"], found["st.global.v4.b32"]) == (4, 8)
