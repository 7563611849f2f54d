"""AdamW's kernel compiled for a GPU where there is none: the interpreter takes more than the compiler does, and knows no widths."""

import re
from collections import Counter

import pytest

SCRIPT = """
import json
import triton
from triton import language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from paperlib.kernels.adamw_triton import BLOCK, WARPS, _adamw, _squares

F, B = tl.float32, tl.bfloat16
variants = {
    "plain": {},
    "not clipped": {"clip": None},
    "all": {"MASKED": True, "FREEZE": True, "START": F, "GAM": F},
    "bf16": {"WEIGHT": B, "GRADIENT": B, "EXP_AVG": B, "EXP_AVG_SQ": B, "MASKED": True},
    "between borders": {"ALIGNED": False, "MASKED": True},
}
plain = {"WEIGHT": F, "GRADIENT": F, "EXP_AVG": F, "EXP_AVG_SQ": F, "START": None, "GAM": None}
plain |= {"MASKED": False, "FREEZE": False, "ALIGNED": True, "BLOCK": BLOCK}
pointers = {"table": "*i64", "gradients": "*i64", "rates": "*fp32", "work": "*i32", "clip": "*fp32", "sums": "*fp32"}
given = pointers | dict.fromkeys(("rest1", "beta2", "rest2", "eps"), "fp32")

def compiled(kernel, fixed):
    types = {name: "constexpr" if name in fixed else given[name] for name in kernel.arg_names}
    source = ASTSource(kernel, types, fixed)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": WARPS}).asm["ptx"]

code = {name: compiled(_adamw, plain | changes) for name, changes in variants.items()}
code["squares"] = compiled(_squares, {"GRADIENT": F, "MASKED": True, "ALIGNED": True, "BLOCK": BLOCK})
print(json.dumps(code))
"""


@pytest.fixture(scope="module")
def instructions(compiled):
    """Per variant, how often each instruction that moves memory stands in the code for compute capability 9.0."""
    moves = re.compile(r"\b(?:ld|st)\.(?:global|shared|local)(?:\.v\d)?\.[a-z]\d+\b")
    return {name: Counter(moves.findall(code)) for name, code in compiled(SCRIPT).items()}


def test_whole_blocks_are_moved_16_bytes_at_a_time(instructions):
    """Eight fp32 entries per thread: two loads of four values for each of four tensors, two stores for each of three."""
    for variant in ("plain", "not clipped"):
        found = instructions[variant]
        assert (found["ld.global.v4.b32"], found["st.global.v4.b32"]) == (8, 6)


def test_a_start_and_gam_are_moved_in_the_same_pass(instructions):
    found = instructions["all"]
    assert (found["ld.global.v4.b32"], found["st.global.v4.b32"]) == (12, 8)


def test_eight_entries_of_bf16_are_one_move(instructions):
    found = instructions["bf16"]
    assert (found["ld.global.v4.b32"], found["st.global.v4.b32"]) == (4, 3)


def test_what_begins_between_borders_is_moved_entry_by_entry(instructions):
    found = instructions["between borders"]
    assert found["ld.global.b32"] and not found["ld.global.v4.b32"] and not found["st.global.v4.b32"]


def test_squares_are_read_16_bytes_at_a_time(instructions):
    assert instructions["squares"]["ld.global.v4.b32"] == 2


def test_everything_stays_in_registers(instructions):
    """Only the sums over a block go through shared memory."""
    assert not [n for name, found in instructions.items() for n in found if "global" not in n and name != "squares"]
