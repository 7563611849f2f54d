"""A frozen model that carries delta modules, each behind a gate."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from paperlib.errors import InputError
from paperlib.kernels.low_rank import adapter, compute_dtype, low_rank_linear
from paperlib.s3delta.deltas import BitFit, LoRA, LowRankAdapter
from paperlib.s3delta.gated_parameters import GatedParameters, Used
from paperlib.s3delta.positions import Position

PREFIX = "delta_"


class Supernet:
    """``model``, in place, with one fresh delta module at every one of ``positions``.

    All of the model is frozen but its task head. Delta modules are submodules of their hosts, ``<path>.delta_<type>``, so the model's own
    ``named_parameters`` shows them. Outside :meth:`gated` every gate is 1 and nothing is multiplied.
    Within a place the parallel deltas are added first; all sequential ones read that sum, H', and are added to it.
    InputError: no positions, or a model that carries deltas at one of them already.

    ``positions``, ``names``, ``deltas`` (a ModuleList), ``sizes`` (n_i, int64 on the model's device): one entry per module, in one order.
    ``head``: name -> parameter of the task head, trained but never counted in ``sizes``.
    """

    def __init__(self, model: nn.Module, positions: Sequence[Position]):
        if not positions:
            raise InputError("a supernet needs at least one delta position")
        self.model, self.positions = model, list(positions)
        self.names = [position.name for position in self.positions]
        self.head = head(model)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in self.head.values():
            parameter.requires_grad_(True)
        self.deltas = nn.ModuleList(position.delta(model) for position in self.positions)
        self.sizes = torch.tensor([d.numel for d in self.deltas], device=next(model.parameters()).device)
        self._gates: torch.Tensor | None = None
        self._used: dict[int, Used] | None = None
        self._read: tuple[torch.Tensor, torch.Tensor] | None = None
        self._casts: dict[nn.Module, torch.Tensor] | None = None
        self._shifted: dict[int, nn.Module] = {}
        self._fused: dict[int, int | None] = {}
        self._handles = [model.register_forward_pre_hook(self._forget)]
        self._place()
        self._parameters = self._parameters_for(self.sizes.device)

    @property
    def numel(self) -> int:
        """Trainable scalars of all delta modules, the head not among them."""
        return sum(delta.numel for delta in self.deltas)

    def parameters(self) -> list[nn.Parameter]:
        """All that is trained: the delta modules' parameters in order, then the head's."""
        return [*self.deltas.parameters(), *self.head.values()]

    @contextmanager
    def gated(self, z: torch.Tensor) -> Iterator[None]:
        """Within this context delta i counts z_i-fold; ``z``: (K,) on the model's device, differentiable.

        The gates are read anew by every forward pass of the model, which may follow a change of the parameters. With all gates 0 the model
        computes what it computes without deltas, bit for bit.
        """
        if z.shape != self.sizes.shape:
            raise ValueError(f"gates of shape {tuple(z.shape)} for {len(self.sizes)} delta modules")
        if self._parameters.device != z.device:
            self._parameters = self._parameters_for(z.device)
        before, self._gates, self._used = self._gates, z, None
        try:
            yield
        finally:
            self._gates, self._used = before, None

    @contextmanager
    def casts_kept(self) -> Iterator[None]:
        """Within this context frozen weights with a LoRA beside them are cast once, for all passes.

        Every pass holds all of these casts when its forward half ends, so that keeping them raises no peak. Frozen weights must stay as they are.
        """
        self._casts = {}
        try:
            yield
        finally:
            self._casts = None

    def remove(self) -> None:
        """Take all delta modules out of the model again; what was frozen stays frozen."""
        for handle in self._handles:
            handle.remove()
        for position in self.positions:
            host = self.model.get_submodule(position.path)
            delattr(host, PREFIX + position.type)
            host.__dict__.pop("forward", None)

    def _place(self) -> None:
        hosts: dict[nn.Module, list[int]] = {}
        for index, position in enumerate(self.positions):
            module = self.model.get_submodule(position.path)
            if hasattr(module, PREFIX + position.type):
                raise InputError(f"the model carries a delta at {position.name} already; load a fresh backbone")
            module.add_module(PREFIX + position.type, self.deltas[index])
            hosts.setdefault(module, []).append(index)
        for module, indices in hosts.items():
            self._hook(module, indices)

    def _hook(self, module: nn.Module, indices: list[int]) -> None:
        """Deltas that shift a parameter of the host do so before it computes, LoRA computes with it; both give H'. The others read it."""
        shifting = [i for i in indices if self._shifts(module, i, indices)]
        within = [i for i in indices if isinstance(self.deltas[i], LoRA)]
        added = [i for i in indices if i not in shifting + within]
        fused = [i for i in added if isinstance(self.deltas[i], LowRankAdapter)][:1]
        # A bias beside a low-rank adapter goes into the adapter's own: one pass over the hidden states less.
        biases = [i for i in added if fused and isinstance(self.deltas[i], BitFit)]
        self._shifted |= dict.fromkeys(shifting, module)
        self._fused |= {i: biases[0] if biases else None for i in fused}
        rest = [i for i in added if i not in fused + biases]

        def before(host, inputs):
            # An attribute of the instance hides the parameter of that name, which stays where it is.
            for i in shifting:
                host.__dict__[self.deltas[i].shifts] = self._use(i)[0]

        def after(host, inputs, output):
            for i in shifting:
                host.__dict__.pop(self.deltas[i].shifts, None)
            if output is None or not added:  # None: the host has raised
                return None
            several = isinstance(output, tuple)
            hidden = output[0] if several else output
            hidden = self._plus(fused, rest, hidden)
            return (hidden, *output[1:]) if several else hidden

        for i in within:
            module.forward = partial(self._linear, module, i)
        if shifting:
            self._handles.append(module.register_forward_pre_hook(before))
        self._handles.append(module.register_forward_hook(after, always_call=True))

    def _linear(self, host: nn.Linear, i: int, x: torch.Tensor) -> torch.Tensor:
        """What the linear map computes with its LoRA."""
        cast = self._cast(host, x)
        return low_rank_linear(x, self._weight(host, cast.dtype), host.bias, *self._use(i), cast=cast)

    def _cast(self, host: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        """x in the dtype the host computes in; what Q, K and V read is cast, and kept for the backward pass, once."""
        dtype = compute_dtype(x, host.weight)
        if x.dtype == dtype:
            return x.detach()
        if self._read is None or self._read[0] is not x:
            self._read = x, x.detach().to(dtype)
        return self._read[1]

    def _weight(self, host: nn.Linear, dtype: torch.dtype) -> torch.Tensor:
        if self._casts is None or host.weight.dtype == dtype:
            return host.weight
        if host not in self._casts:
            self._casts[host] = host.weight.detach().to(dtype)
        return self._casts[host]

    def _shifts(self, module: nn.Module, i: int, beside: list[int]) -> bool:
        """Not where another sequential delta is to read H' without the shift. A linear map without a bias can be given one."""
        name = self.deltas[i].shifts
        alone = all(j == i or self.positions[j].parallel for j in beside)
        has = name is not None and (getattr(module, name, None) is not None or isinstance(module, nn.Linear))
        return has and (self.positions[i].parallel or alone)

    def _plus(self, fused: list[int], rest: list[int], read: torch.Tensor) -> torch.Tensor:
        """H' and what the sequential deltas say of it; under autocast parameters are wider than hidden states, which keep their type."""
        hidden = read
        for i in fused:
            hidden = adapter(read, *self._use(i))
        for i in rest:
            hidden = hidden + self.deltas[i].map(read, *self._use(i)).to(read.dtype)
        return hidden

    def _use(self, i: int) -> Used:
        """Parameters of delta i in this pass."""
        if self._gates is None:
            return self._parameters.alone(i)
        if self._used is None:
            self._used = self._parameters.gated(self._gates)
        return self._used[i]

    def _parameters_for(self, device: torch.device) -> GatedParameters:
        return GatedParameters(self.deltas, self._shifted, self._fused, device)

    def _forget(self, model, inputs) -> None:
        self._used = self._read = None


def head(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter of the task head: all that lies outside the pre-trained body. A text-to-text model has none.

    BERT's pooler is part of its body: pre-trained, frozen, and counted with the backbone.
    """
    inside = {*model.base_model.parameters()}
    output = model.get_output_embeddings()
    inside |= {*output.parameters()} if output is not None else set()
    return {name: parameter for name, parameter in model.named_parameters() if parameter not in inside}


def backbone_size(model: nn.Module) -> int:
    """Parameters of the pre-trained model: shared ones once, neither the task head nor delta modules."""
    outside = {*head(model).values()}
    return sum(p.numel() for name, p in model.named_parameters() if p not in outside and f".{PREFIX}" not in name)
