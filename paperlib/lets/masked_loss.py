"""The loss as a function of the mask c alone: what Algorithm 2 differentiates in its third line, and the truth behind its scores."""

from collections.abc import Mapping

import numpy as np
import torch
from torch.func import functional_call

from paperlib.lets.masked_tuning import owned
from paperlib.lets.problem import TaskProblem
from paperlib.tasks.encoding import Encoded


class MaskedLoss:
    """L(W^p + c W^d; B) of one batch B, the ``indices`` of ``rows``, under the W^d that ``problem`` has at every call.

    Biases, norms and readout stay; nothing is dropped at random, as the model is put in evaluation mode. The frozen pass is computed once.
    """

    def __init__(self, problem: TaskProblem, rows: Encoded, indices: np.ndarray):
        problem.model.eval()
        self.problem, self.batch = problem, problem.batch(rows, indices)
        with torch.no_grad():
            self.shared = problem.shared(self.batch)

    @property
    def offsets(self) -> dict[str, torch.Tensor]:
        """W^d as it is, by linear map: the model's own tensors."""
        return {name: own.offset.weight.detach() for name, own in owned(self.problem.model).items()}

    def __call__(self, masks: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss, differentiable in ``masks``: c by linear map, boolean or floating; offsets that are not named are kept whole."""
        delta = self.offsets
        weights = {f"{name}.offset.weight": delta[name] * c for name, c in masks.items()}
        return self._loss(functional_call(self.problem.model, weights, (self.shared,)))

    @torch.no_grad()
    def dropped(self, name: str, places: np.ndarray) -> np.ndarray:
        """L(c = 1) - L(c_e = 0, the others 1) for each of the ``places`` e in the flattened offset ``name``; only the layers from there are run.

        To first order this is g_e.
        """
        network, first = self.problem.model, int(name.split(".")[1])
        below = network.hidden_states(self.shared)[:first]
        flat = owned(network)[name].offset.weight.detach().view(-1)
        whole, found = self._from(first, below), []
        for place in places:
            before = flat[place].item()
            flat[place] = 0.0
            found.append(whole - self._from(first, below))
            flat[place] = before
        return np.array(found)

    def _from(self, first: int, below: list[torch.Tensor]) -> float:
        """The loss, with the hidden states of the layers ``below`` number ``first`` known."""
        network, hidden = self.problem.model, [*below]
        above = below[-1] if below else self.shared.embedded
        layers = [*zip(network.layers, self.shared.layers, network.architecture.layers, strict=True)]
        for layer, cached, own in layers[first:]:
            above = layer(cached, above, self.shared.mask, own)
            hidden.append(above)
        return self._loss(network.readout(torch.stack([each[:, 0] for each in hidden]))).item()

    def _loss(self, scores: torch.Tensor) -> torch.Tensor:
        return self.problem.loss(scores.view(len(self.batch["labels"]), -1), self.batch)
