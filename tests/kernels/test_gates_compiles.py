"""The gates' kernels compiled for a GPU where there is none: the interpreter takes more than the compiler does."""

import pytest

SCRIPT = """
import json, re
from collections import Counter
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from paperlib.kernels import gates_triton

def compiled(kernel, **constants):
    constants |= {"CHUNK": gates_triton.CHUNK}
    types = {n: "constexpr" if n in constants else {"sizes": "*i64", "count": "i32"}.get(n, "*fp64") for n in kernel.arg_names}
    fixed = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    ptx = triton.compile(ASTSource(kernel, types, fixed), target=GPUTarget("cuda", 90, 32)).asm["ptx"]
    found = Counter(re.findall(r"\\b((?:ld|st)\\.(?:global|local)|bar\\.sync|add\\.f64|(?:add|sub|mul|fma|div|ex2|cvt)[.\\w]*\\.f32[.\\w]*)\\b", ptx))
    return found

draws = {f"draw, hard {hard}": compiled(gates_triton._draw, HARD=hard, PASSES=20, SECTIONS=16) for hard in (False, True)}
slopes = {f"slope, form {form}": compiled(gates_triton._slope, HARD=True, FORM=form) for form in range(3)}
print(json.dumps(draws | slopes))
"""


@pytest.fixture(scope="module")
def instructions(compiled):
    """``instructions[case]``: how often instructions of memory, barriers and arithmetic stand in its code."""
    return compiled(SCRIPT)


def test_nothing_is_spilled(instructions):
    assert len(instructions) == 5
    assert not [case for case, found in instructions.items() if any("local" in name for name in found)]


def test_everything_is_computed_in_double_precision(instructions):
    for case, found in instructions.items():
        assert found["add.f64"] and not [name for name in found if ".f32" in name], case


def test_the_likeliest_gate_is_turned_on_after_all_are_stored(instructions):
    """A barrier stands between the threads' own stores and the one that may overwrite another's."""
    assert all(found["bar.sync"] for case, found in instructions.items() if case.startswith("draw"))
