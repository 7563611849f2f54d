"""Checkpoints: everything an interrupted run needs to go on exactly, in one safetensors file, written atomically."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, safe_open, save_file

from paperlib.training.method import Method

NAME = "checkpoint.safetensors"
BEST = "best.safetensors"


def save(
    folder: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    method: Method,
    generator: np.random.Generator,
    state: dict[str, Any],
) -> None:
    """Write trainable weights, moments, method state and both random generators; ``state`` is the loop's own, plain JSON."""
    names = {parameter: name for name, parameter in _trainable(model).items()}
    tensors = {f"model.{name}": parameter.detach() for parameter, name in names.items()}
    for parameter, moments in optimizer.state.items():
        tensors |= {f"optimizer.{names[parameter]}.{key}": value for key, value in moments.items()}
    tensors |= {f"method.{name}": tensor for name, tensor in method.state_dict().items()}
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    text = {"state": json.dumps(state), "generator": json.dumps(generator.bit_generator.state, default=_plain)}
    _write(folder / NAME, tensors, text)


def load(
    folder: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    method: Method,
    generator: np.random.Generator,
) -> dict[str, Any] | None:
    """Put everything :func:`save` wrote back in place and return the loop's state; None if there is no checkpoint."""
    path = folder / NAME
    if not path.is_file():
        return None
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        text = file.metadata()
    # The step counter is a tensor too: torch's fused optimizer wants it beside the parameter, all others on the CPU.
    fused = {parameter for group in optimizer.param_groups if group.get("fused") for parameter in group["params"]}
    with torch.no_grad():
        for name, parameter in _trainable(model).items():
            parameter.copy_(tensors[f"model.{name}"])
            moments = {key: tensors.get(f"optimizer.{name}.{key}") for key in ("step", "exp_avg", "exp_avg_sq")}
            if moments["step"] is not None:
                beside = [key for key in moments if key != "step" or parameter in fused]
                moments |= {key: moments[key].to(parameter.device) for key in beside}
                optimizer.state[parameter] = moments
    prefix = "method."
    method.load_state_dict({name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)})
    torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    generator.bit_generator.state = _arrays(json.loads(text["generator"]))
    return json.loads(text["state"])


def save_best(folder: Path, model: torch.nn.Module) -> None:
    """Keep the weights that did best on validation so far."""
    _write(folder / BEST, {name: parameter.detach() for name, parameter in _trainable(model).items()}, {})


def load_best(folder: Path, model: torch.nn.Module) -> None:
    """Take back the weights that did best on validation."""
    tensors = load_file(folder / BEST)
    with torch.no_grad():
        for name, parameter in _trainable(model).items():
            parameter.copy_(tensors[name])


def clear(folder: Path) -> None:
    """Remove what a finished run no longer needs."""
    for name in (NAME, BEST):
        (folder / name).unlink(missing_ok=True)


def _trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Frozen weights never change: whoever resumes has loaded them again."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _write(path: Path, tensors: dict[str, torch.Tensor], text: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file({name: _alone(tensor) for name, tensor in tensors.items()}, part, metadata=text)
    part.replace(path)


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """Contiguous, and not a part of a larger one: the file takes no two tensors that share memory."""
    whole = tensor.contiguous()
    return whole if whole.untyped_storage().nbytes() == whole.nbytes else whole.clone()


def _plain(value):
    return [int(word) for word in value] if isinstance(value, np.ndarray) else int(value)


def _arrays(state: dict[str, Any]) -> dict[str, Any]:
    words = {key: np.array(value, dtype=np.uint64) for key, value in state["state"].items()}
    return {**state, "state": words}
