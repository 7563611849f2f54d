"""Every delta type in one form, H_out = m(H_in) + z delta: real modules against formulas written out (appendix A.1, eq. 22)."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from paperlib.s3delta.anatomy import gelu, layer_norm, linear, logits, normalised, relative, rms_norm
from paperlib.s3delta.deltas import Adapter, BitFit, Delta, LNFiT, LoRA
from paperlib.s3delta.export import merge
from paperlib.s3delta.positions import TITLES, Position
from paperlib.s3delta.supernet import Supernet

Gated = tuple[Position, Delta, float]


@dataclass(frozen=True)
class Composition:
    """All hosts of one role in one model, every delta there gated at random.

    ``parallel``, ``sequential``: titles of the types, None for none. ``error``: of the supernet against m(H) + sum z delta(H), then + sum z
    delta(H'), relative. ``chained``: the same if each sequential delta read what the one before it had made; None where there is but one.
    """

    role: str
    hosts: int
    parallel: str | None
    sequential: str | None
    error: float
    chained: float | None


@dataclass(frozen=True)
class Alone:
    """One row of the heat map alone in a model. ``effect``: what the deltas change in the logits at z = 1, relative. ``unchanged``: z = 0 gives
    the plain logits bit for bit. ``plain``: z = 1 gives, relatively, what no gates give. ``merged``: z = 1 against the deltas merged into the
    weights; None where the hosts cannot hold them.
    """

    row: str
    modules: int
    effect: float
    unchanged: bool
    plain: float
    merged: float | None


def by_hand(delta: Delta, x: torch.Tensor) -> torch.Tensor:
    """delta(x) from the delta's parameters."""
    match delta:
        case LoRA():
            return delta.scale * (x @ delta.A.T @ delta.B.T)
        case BitFit():
            return delta.b.expand_as(x)
        case LNFiT() if delta.centred:
            return layer_norm(x, delta.s, torch.zeros_like(delta.s), delta.epsilon)
        case LNFiT():
            return rms_norm(x, delta.s, delta.epsilon)
        case Adapter():
            return gelu(x @ delta.D.T + delta.c1) @ delta.U.T + delta.c2
        case _:
            return gelu(x @ (delta.l1 @ delta.r1) + delta.c1) @ (delta.l2 @ delta.r2) + delta.c2


def composed(plain: torch.Tensor, x: torch.Tensor, deltas: Sequence[Gated], chained: bool = False) -> torch.Tensor:
    """H_out: ``plain`` = m(x), and the deltas of one host with their gates."""
    hidden = plain + sum(z * by_hand(delta, x) for position, delta, z in deltas if position.parallel)
    read = hidden
    for position, delta, z in deltas:
        if not position.parallel:
            hidden = hidden + z * by_hand(delta, hidden if chained else read)
    return hidden


@torch.no_grad()
def compositions(model: nn.Module, positions: Sequence[Position], seed: int) -> list[Composition]:
    """Each role's hosts in one forward pass of ``model`` in float64, which stays as it is."""
    model = copy.deepcopy(model).double().eval()
    hosts = {path: model.get_submodule(path) for path in {position.path: None for position in positions}}
    inputs, before, after = {}, {}, {}
    for path, host in hosts.items():
        # In front of the supernet's own hook, so that a block's output is seen without its adapter.
        host.register_forward_hook(_keeping(path, inputs, before), with_kwargs=True)
    supernet = drawn(model, positions, seed)
    for path, host in hosts.items():
        host.register_forward_hook(_keeping(path, {}, after), with_kwargs=True)
    z = torch.rand(len(positions), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    with supernet.gated(z):
        logits(model, seed)
    at: dict[str, list[Gated]] = {path: [] for path in hosts}
    for position, delta, gate in zip(positions, supernet.deltas, z.tolist(), strict=True):
        at[position.path].append((position, delta, gate))
    roles: dict[tuple[str, ...], list[str]] = {}
    for path, deltas in at.items():
        roles.setdefault(tuple(dict.fromkeys(position.role for position, _, _ in deltas)), []).append(path)
    return [_composition(roles, paths, hosts, inputs, before, after, at) for roles, paths in roles.items()]


def _composition(roles, paths, hosts, inputs, before, after, at) -> Composition:
    def error(path: str, chained: bool) -> float:
        plain = _plain(hosts[path], inputs[path], before[path])
        return relative(composed(plain, inputs[path], at[path], chained), after[path])

    titles: dict[bool, list[str]] = {True: [], False: []}
    for position, _, _ in at[paths[0]]:
        titles[position.parallel].append(TITLES[position.type])
    return Composition(
        role=" and ".join(roles),
        hosts=len(paths),
        parallel=", ".join(titles[True]) or None,
        sequential=", ".join(titles[False]) or None,
        error=max(error(path, chained=False) for path in paths),
        chained=min(error(path, chained=True) for path in paths) if len(titles[False]) > 1 else None,
    )


def _plain(host: nn.Module, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """m(x), written out for linear maps and norms; what was seen of a block."""
    if isinstance(host, nn.Linear):
        return linear(host, x)
    return normalised(host, x) if hasattr(host, "weight") else seen


def _keeping(path: str, inputs: dict, outputs: dict) -> Callable:
    def hook(host, positional, named, output):
        inputs[path] = positional[0] if positional else named["hidden_states"]
        outputs[path] = output[0] if isinstance(output, tuple) else output

    return hook


@torch.no_grad()
def alone(model: nn.Module, positions: Sequence[Position], seed: int) -> Alone:
    """The deltas of one row at gates 0 and 1, in float64; ``model`` stays as it is."""
    model = copy.deepcopy(model).double().eval()
    plain = logits(model, seed)
    supernet = drawn(model, positions, seed)
    found = {}
    for gate in (0.0, 1.0):
        with supernet.gated(torch.full((len(positions),), gate, dtype=torch.float64)):
            found[gate] = logits(model, seed)
    ungated = logits(model, seed)
    rest = merge(supernet)
    return Alone(
        row=positions[0].row,
        modules=len(positions),
        effect=relative(found[1.0], plain),
        unchanged=torch.equal(found[0.0], plain),
        plain=relative(ungated, found[1.0]),
        merged=None if rest else relative(logits(model, seed), found[1.0]),
    )


def drawn(model: nn.Module, positions: Sequence[Position], seed: int) -> Supernet:
    """A supernet none of whose deltas is the zero map: every parameter moved by N(0, 0.1^2)."""
    generator = torch.Generator().manual_seed(seed)
    supernet = Supernet(model, positions)
    with torch.no_grad():
        for parameter in supernet.deltas.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
    return supernet
