"""A step of the optimizer in one pass over the weights, with what methods add to it: :mod:`paperlib.kernels.adamw` in the training loop."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from paperlib.kernels.adamw import OnePassAdamW, Rate, Slot
from paperlib.kernels.packing import as_bits
from paperlib.training.in_turn import Named, add_squares, moved
from paperlib.training.update import Extra

if TYPE_CHECKING:
    from paperlib.training.method import Method
    from paperlib.training.optimizer import Pull


@dataclass(frozen=True)
class _Ready:
    """The kernel made ready for parameters, with what it was made for.

    ``extra`` gives what the step does beside AdamW while that lives; ``steps`` are t of each parameter, so that the host asks no tensor.
    """

    extra: Callable[[], Extra | None]
    with_gam: bool
    parameters: list[torch.nn.Parameter]
    states: list[dict[str, torch.Tensor]]
    exp_avgs: list[torch.Tensor]
    steps: list[int]
    members: frozenset[torch.nn.Parameter]
    adamw: OnePassAdamW

    @property
    def gradients(self) -> list[torch.Tensor | None]:
        return [parameter.grad for parameter in self.parameters]

    def norms(self) -> torch.Tensor:
        """Of all gradients, and of what the masks leave of them, fp32 (2,)."""
        return self.adamw.norms(self.gradients)


class OnePass(torch.optim.Optimizer):
    """AdamW (0.9, 0.999, 1e-8) by :class:`paperlib.kernels.adamw.OnePassAdamW`: mask, clipping, GAM and decay within the pass.

    ``groups``: as torch's, each with its ``lr`` and ``weight_decay``; ``named``: all parameters by name. State is keyed and named as that of
    torch's AdamW, the counts of steps on the CPU, as torch has them where it is not fused. Gradients stay as they are, unless the method looks at
    clipped ones. Weights, moments and the tensors of an :class:`Extra` must stay where they are; moments may be replaced.
    """

    def __init__(self, groups: list[dict[str, Any]], named: Named, pull: "Pull | None"):
        super().__init__(groups, {})
        self.named = named
        self._start, self._pull = ({}, {}) if pull is None else (pull.start, pull.rate)
        self._ready: _Ready | None = None
        self._norms: torch.Tensor | None = None

    def norm(self) -> torch.Tensor:
        """L2 norm of all gradients together, 0-d, where they are; in the steady state one launch gives that of masked ones too."""
        self._norms = None
        if not self._is_ready():
            return get_total_norm([parameter.grad for parameter in moved(self.named)])
        self._norms = self._ready.norms()
        return self._norms[0]

    def update(self, method: "Method", step: int, clip_norm: float, norm: torch.Tensor | None) -> None:
        """One step with all that ``method`` adds to it; ``norm``: the gradients', None if they have changed since it was taken."""
        extra, in_kernel = method.extra(step), not method.needs_clipped
        if extra is not None and not in_kernel:
            add_squares(self.named, extra.gam)
        ready = self._made(extra, with_gam=in_kernel)
        norm = self._seen_by_clipping(extra, fresh=norm is None)
        if in_kernel:
            clip = (clip_norm / (norm + 1e-6)).clamp(max=1.0)
        else:
            clip = None
            clip_grads_with_norm_(moved(self.named), clip_norm, norm)
            method.after_clipping(step, self)
        self.step(ready, clip)

    def step(self, ready: _Ready | None = None, clip: torch.Tensor | None = None) -> None:
        """Move every parameter that has a gradient; called without anything: plain AdamW, unclipped."""
        ready = ready or self._made(None, with_gam=True)
        gradients = ready.gradients
        # Methods may have regrouped them.
        told = {each: (group["lr"], group["weight_decay"]) for group in self.param_groups for each in group["params"]}
        rates = []
        for parameter, taken in zip(ready.parameters, ready.steps, strict=True):
            lr, decay = told[parameter]
            rates.append(Rate(lr, self._pull.get(parameter, decay), taken + 1))
        ready.adamw.step(gradients, rates, clip)
        now = [i for i, gradient in enumerate(gradients) if gradient is not None]
        for i in now:
            ready.steps[i] += 1
        torch._foreach_add_([ready.states[i]["step"] for i in now], 1)

    def _seen_by_clipping(self, extra: Extra | None, fresh: bool) -> torch.Tensor:
        """The norm to clip by, always the kernel's: a resumed run, which was not ready for ``norm``, then goes on bit for bit."""
        if fresh or self._norms is None:
            self._norms = self._ready.norms()
        masked = extra is not None and extra.mask and extra.clip_sees == "masked"
        return self._norms[1 if masked else 0]

    def _is_ready(self) -> bool:
        """Whether what is ready holds every parameter that has a gradient, and the moments that they have now."""
        ready = self._ready
        if ready is None or not ready.members.issuperset(moved(self.named)):
            return False
        pairs = zip(ready.parameters, ready.exp_avgs, strict=True)
        return all(self.state[parameter]["exp_avg"] is moment for parameter, moment in pairs)

    def _made(self, extra: Extra | None, with_gam: bool) -> _Ready:
        if not (self._is_ready() and self._ready.extra() is extra and self._ready.with_gam == with_gam):
            # First the old one goes: its masks and GAM, if nobody else has them.
            self._let_go()
            self._ready = self._make(extra, with_gam)
        return self._ready

    def _make(self, extra: Extra | None, with_gam: bool) -> _Ready:
        asked = extra or Extra()
        names = [name for name, each in self.named.items() if each.grad is not None or each in self.state]
        parameters = [self.named[name] for name in names]
        states = [self._state_of(parameter) for parameter in parameters]
        slots = [
            Slot(
                parameter,
                state["exp_avg"],
                state["exp_avg_sq"],
                mask=as_bits(asked.mask[name]) if name in asked.mask else None,
                start=self._start.get(parameter),
                gam=asked.gam.get(name) if with_gam else None,
            )
            for name, parameter, state in zip(names, parameters, states, strict=True)
        ]
        return _Ready(
            extra=_nothing if extra is None else self._while_alive(extra),
            with_gam=with_gam,
            parameters=parameters,
            states=states,
            exp_avgs=[state["exp_avg"] for state in states],
            steps=[int(state["step"]) for state in states],
            members=frozenset(parameters),
            adamw=OnePassAdamW(slots, policy=asked.policy),
        )

    def _state_of(self, parameter: torch.nn.Parameter) -> dict[str, torch.Tensor]:
        state = self.state[parameter]
        if not state:
            moments = {key: torch.zeros_like(parameter, requires_grad=False) for key in ("exp_avg", "exp_avg_sq")}
            state |= {"step": torch.zeros(())} | moments
        return state

    def _while_alive(self, extra: Extra) -> Callable[[], Extra | None]:
        me = weakref.ref(self)

        def gone(_):
            if (optimizer := me()) is not None:
                optimizer._let_go()

        return weakref.ref(extra, gone)

    def _let_go(self) -> None:
        self._ready = self._norms = None


def _nothing() -> None:
    """What a step that is AdamW alone was made ready for."""
